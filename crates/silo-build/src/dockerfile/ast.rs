//! What a Dockerfile says, parsed and not yet expanded: words keep their `$NAME` until [`super`]'s scope replaces them.

/// Lines of the file, from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// First.
    pub first: u32,
    /// Last.
    pub last: u32,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// `\` or `` ` `` (parser directive `escape`).
    pub escape: char,
    /// `ARG` before the first `FROM`, in order.
    pub arguments: Vec<(Argument, Lines)>,
    /// In the order of the file; at least one.
    pub stages: Vec<Stage>,
    /// What a user should hear of, such as an unknown directive.
    pub warnings: Vec<(String, Lines)>,
    /// Instructions with an empty line among their continuations.
    pub empty_continuations: Vec<Lines>,
    /// `# check=`.
    pub checks: CheckOptions,
}

/// What is done with findings of the build checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Rules that are not told.
    pub skip: Vec<String>,
    /// None is.
    pub skip_all: bool,
    /// A build with findings fails.
    pub error: bool,
}

/// `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Image, `scratch`, or the name of a stage before; unexpanded.
    pub from: String,
    /// `--platform`, unexpanded.
    pub platform: Option<String>,
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// The `FROM` itself.
    pub lines: Lines,
    /// As written: see [`Step::text`].
    pub text: String,
    /// The rest, in order.
    pub steps: Vec<Step>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is to be done.
    pub instruction: Instruction,
    /// As written, without heredocs' bodies: for messages and history. Continuations are joined as dockerd joins them: with
    /// nothing between, the blanks that begin the next line kept; comments between are left out.
    pub text: String,
    /// Where.
    pub lines: Lines,
}

/// `ARG name[=default]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Name.
    pub name: String,
    /// Default, unexpanded; quotes as written.
    pub default: Option<String>,
}

/// Exec form (a JSON array) or shell form (the text as written).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["a", "b"]`.
    Exec(Vec<String>),
    /// `a b`.
    Shell(String),
}

/// A heredoc's body, the terminator left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`: a source's file name.
    pub name: String,
    /// Lines with their ends; leading tabs are gone where `<<-` asks for it.
    pub body: String,
    /// Whether variables are replaced (the word was not quoted).
    pub expand: bool,
}

/// A source of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Path, pattern or URL, unexpanded.
    Path(String),
    /// A file in the Dockerfile itself.
    Heredoc(Heredoc),
}

/// `COPY` and `ADD`; flags unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// At least one.
    pub sources: Vec<Source>,
    /// Where to.
    pub target: String,
    /// `--from`: stage, number of a stage, or image (`COPY`).
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (`COPY`).
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// `--checksum` (`ADD`).
    pub checksum: Option<String>,
    /// `--keep-git-dir` (`ADD`).
    pub keep_git_dir: bool,
    /// `--unpack` (`ADD`): `None` lets local archives be unpacked, and none from an URL.
    pub unpack: Option<bool>,
}

/// What a mount of `RUN --mount` is; paths unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, of a stage or an image.
    Bind {
        /// `from`; `None`: the context.
        from: Option<String>,
        /// `source`, a path inside it.
        source: String,
        /// `rw`: writes are thrown away.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// `id`; the target if none is given.
        id: Option<String>,
        /// `from`: what it begins with.
        from: Option<String>,
        /// `source`, a path inside that.
        source: String,
        /// `sharing`.
        sharing: Sharing,
        /// `ro`.
        read_only: bool,
        /// `mode`, `uid`, `gid` of a new directory.
        mode: u32,
        /// See `mode`.
        uid: u32,
        /// See `mode`.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// `size` in bytes.
        size: Option<u64>,
    },
    /// A file that the client sends for this build.
    Secret {
        /// `id`.
        id: String,
        /// `env`: as a variable, beside or instead of the file.
        env: Option<String>,
        /// `required`.
        required: bool,
        /// `mode`, `uid`, `gid` of the file.
        mode: u32,
        /// See `mode`.
        uid: u32,
        /// See `mode`.
        gid: u32,
    },
    /// The client's SSH agent.
    Ssh {
        /// `id`.
        id: String,
        /// `required`.
        required: bool,
    },
}

/// `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Several builds at once.
    #[default]
    Shared,
    /// Each has its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub kind: MountKind,
    /// Where, unexpanded; a secret's may be left out (`/run/secrets/ID`).
    pub target: Option<String>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// The build's.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run. Of a shell form the heredocs' words stay in the text.
    pub command: Command,
    /// Bodies, in the order of their words. A `RUN <<EOF` alone is a script: the shell's, or that of its `#!` line.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order. Of an unexpanded instruction those without variables only: see `mount_flags`.
    pub mounts: Vec<Mount>,
    /// `--mount` as written; what it says is known once its variables are (also its type may be one).
    pub mount_flags: Vec<String>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security`: `sandbox` or `insecure`.
    pub security: Option<String>,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`.
    None,
    /// `CMD`; durations in nanoseconds, 0 where none is given.
    Check {
        /// What to run.
        command: Command,
        /// `--interval`.
        interval: u64,
        /// `--timeout`.
        timeout: u64,
        /// `--start-period`.
        start_period: u64,
        /// `--start-interval`.
        start_interval: u64,
        /// `--retries`.
        retries: u32,
    },
}

/// One instruction. Strings are unexpanded words; those of key and value keep their quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`.
    Add(Transfer),
    /// `COPY`.
    Copy(Transfer),
    /// `ARG`, one or more.
    Arg(Vec<Argument>),
    /// `CMD`.
    Cmd(Command),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`, in order.
    Env(Vec<(String, String)>),
    /// `EXPOSE`.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`, in order.
    Label(Vec<(String, String)>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the text of the instruction, heredocs included, and that it parses.
    Onbuild(String),
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    Stopsignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}
