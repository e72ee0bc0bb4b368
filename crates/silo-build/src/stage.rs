//! One stage: its base, its base's triggers, its steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use silo_engine::guest::{self, Guest, Os};
use silo_engine::images::{BuiltLayer, ContainerConfig, State};
use silo_engine::{Engine, Hidden};

use crate::apply::{self, Said};
use crate::copy::{Form, Item, Prepared, Request, Tree, prepare};
use crate::dockerfile::ast;
use crate::dockerfile::ast::{Instruction, Lines, MountKind, RunNetwork, Source, Transfer};
use crate::dockerfile::{
    Program, Scope, Shell, comment, nop_history, run_history, transfer_history, undefined, workdir_history,
};
use crate::failure::{Failure, Result, blocking};
use crate::mounts::{self, Files, Mounts, Place};
use crate::output::StageOutput;
use crate::plan::{Base, From};
use crate::run::{self, Keep};
use crate::stages::{StageEnd, Work};
use crate::steps::{Step, Steps};

/// The directory of a script that a `RUN` has in its Dockerfile, in the guests' roots.
const SCRIPTS: &str = ".build-script";

struct Stage<'s> {
    work: &'s Work<'s>,
    index: usize,
    steps: Steps<'s>,
    /// The config so far: what a step changes, and what the base's says no more.
    config: ContainerConfig,
    scope: Scope,
    guest: &'static dyn Guest,
    said: Said,
    output: StageOutput<'s>,
}

/// Unpacked layers of a state, uppermost first.
fn layers(engine: &Engine, state: &State) -> Result<Vec<PathBuf>> {
    if state.config.rootfs.diff_ids.is_empty() {
        return Ok(Vec::new());
    }
    engine.images().chain(state.id.as_str()).map_err(|e| Failure::internal(e.to_string()))
}

fn guest_of(state: &State) -> Result<&'static dyn Guest> {
    let os = Os::parse(&state.config.os).and_then(guest::of);
    os.ok_or_else(|| Failure::invalid(format!("unknown operating system {:?}", state.config.os)))
}

fn form(guest: &dyn Guest) -> Form {
    Form { files: guest.layer_files(), shown_at: guest.changes().1, windows: !guest.env_case_sensitive() }
}

/// The image or stage that a stage begins with.
async fn base<'s>(
    work: &'s Work<'s>,
    index: usize,
    output: &StageOutput<'_>,
) -> Result<(State, Option<&'s StageEnd>)> {
    let stage = &work.plan.stages[index];
    let same = |state: &State| {
        work.engine.images().state(state.id.as_str()).map_err(|e| Failure::internal(e.to_string()))
    };
    match &stage.base {
        Base::Stage(other) => {
            let end = work.stage(*other).await?;
            Ok((same(&end.state)?, Some(end)))
        }
        Base::Scratch => {
            let platform = stage.platform.clone().unwrap_or_else(|| work.platform.clone());
            let state =
                work.engine.images().empty_state(&platform.os, &platform.architecture, &platform.variant);
            Ok((state.map_err(|e| Failure::internal(e.to_string()))?, None))
        }
        Base::Image(name) => {
            let asked = (!work.request.platform.is_empty()).then_some(&work.platform);
            let state = work.bases().get(name, stage.platform.as_ref().or(asked), output).await?;
            Ok((state, None))
        }
    }
}

pub(crate) async fn build<'s>(work: &'s Work<'s>, index: usize) -> Result<StageEnd> {
    let stage = &work.plan.stages[index];
    let output = StageOutput::new(work.output, &work.label(index));
    let total = work.plan.step_count();
    let mut number = work.first_step(index);
    // Announced when it is its turn.
    for needed in &stage.needs {
        work.stage(*needed).await?;
    }
    output.say(&format!("Step {number}/{total} : {}", stage.text)).await;
    let at = |lines: Lines, text: &str| {
        let (file, text) = (work.file.clone(), text.to_owned());
        move |failure: Failure| failure.at(&file, lines.first, &text)
    };
    let (state, of_stage) = base(work, index, &output).await.map_err(at(stage.lines, &stage.text))?;
    output
        .say(&format!(
            " ---> {}",
            if matches!(stage.base, Base::Scratch) { "" } else { &state.id.hex()[..12] }
        ))
        .await;
    let guest = guest_of(&state)?;
    let mut config = state.config.config.clone();
    let triggers = std::mem::take(&mut config.on_build);
    apply::default_path(&mut config, guest);
    let seen = apply::with_search_path(&config.env, guest);
    let scope = match of_stage {
        Some(end) => end.scope.based_on_this(),
        None => {
            let image = &state.config;
            // Where nobody says what is built for, the image does.
            let globals = match work.request.platform.is_empty() {
                true => work.plan.globals.for_platform(&image.os, &image.architecture, &image.variant),
                false => work.plan.globals.clone(),
            };
            Scope::new(&globals, work.plan.escape, &seen, guest.env_case_sensitive())
        }
    };
    let begin = work.engine.images().state(state.id.as_str());
    let begin = match of_stage {
        Some(end) => end.base.clone(),
        None => Arc::new(begin.map_err(|e| Failure::internal(e.to_string()))?),
    };
    let mut this = Stage {
        work,
        index,
        steps: Steps::new(work.engine, state, work.request.no_cache, work.cache_from()),
        config,
        scope,
        guest,
        said: Said::default(),
        output,
    };
    let triggers = work.plan.triggers(index, &triggers)?;
    if !triggers.steps.is_empty() {
        let (count, s) = (triggers.steps.len(), if triggers.steps.len() == 1 { "" } else { "s" });
        this.output.say(&format!("# Executing {count} build trigger{s}")).await;
    }
    for step in &triggers.steps {
        this.instruction(step).await.map_err(at(stage.lines, &format!("ONBUILD {}", step.text)))?;
    }
    for step in &stage.steps {
        number += 1;
        this.output.say(&format!("Step {number}/{total} : {}", step.text)).await;
        work.warnings.add(undefined(step, &this.scope)).map_err(at(step.lines, &step.text))?;
        this.instruction(step).await.map_err(at(step.lines, &step.text))?;
    }
    let is_last = index + 1 == work.plan.stages.len();
    if is_last && !work.request.labels.is_empty() {
        this.labels().await?;
    }
    Ok(StageEnd { state: Arc::new(this.steps.last()?), base: begin, scope: this.scope.clone() })
}

impl<'s> Stage<'s> {
    fn shell(&self) -> Shell {
        apply::shell(&self.config, self.guest)
    }

    async fn instruction(&mut self, step: &ast::Step) -> Result<()> {
        let instruction = step.expand(&self.scope)?;
        match &instruction {
            Instruction::Run(run) => self.run(run).await?,
            Instruction::Copy(transfer) => self.transfer("COPY", transfer).await?,
            Instruction::Add(transfer) => self.transfer("ADD", transfer).await?,
            Instruction::Workdir(_) => self.workdir(&instruction).await?,
            other => {
                let shell = self.shell();
                let said = comment(other, &shell).unwrap_or_default();
                apply::apply(&mut self.config, other, self.guest, &mut self.said)?;
                let author = match other {
                    Instruction::Maintainer(name) => Some(name.clone()),
                    _ => None,
                };
                // A SHELL is written by itself, as dockerd does.
                let created_by = nop_history(&self.shell(), &said);
                let step = Step { config: self.config.clone(), created_by, author, ..Default::default() };
                self.config_only(step).await?;
            }
        }
        self.scope.apply(&instruction).map_err(Failure::invalid)
    }

    /// `--label`, which nothing expands.
    async fn labels(&mut self) -> Result<()> {
        let labels = self.work.request.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let instruction = Instruction::Label(labels);
        let shell = self.shell();
        apply::apply(&mut self.config, &instruction, self.guest, &mut self.said)?;
        let created_by = nop_history(&shell, &comment(&instruction, &shell).unwrap_or_default());
        self.config_only(Step { config: self.config.clone(), created_by, ..Default::default() }).await
    }

    async fn config_only(&mut self, step: Step) -> Result<()> {
        match self.steps.find(&step, &self.output).await {
            true => Ok(()),
            false => self.steps.made(step, None, &self.output).await,
        }
    }

    /// A directory of the build's own.
    fn scratch(&self, what: &str) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix(what).tempdir_in(self.work.scratch);
        made.map_err(|e| Failure::internal(format!("making a directory for the build: {e}")))
    }

    /// A layer of files that were prepared.
    async fn written(&self, prepared: Prepared) -> Result<Option<BuiltLayer>> {
        let (top, archives) = (self.scratch("layer-")?, self.scratch("archives-")?);
        let upper = top.path().join(self.guest.changes().0);
        let (engine, id) = (self.work.engine.clone(), self.steps.state.id.to_string());
        // To the end: a layer of a directory that goes meanwhile would be found as whole.
        let made = self.work.removals.whole(async move {
            blocking(move || {
                std::fs::create_dir_all(&upper)
                    .map_err(|e| Failure::internal(format!("making {}: {e}", upper.display())))?;
                prepared.write(&upper, archives.path())?;
                Ok(())
            })
            .await?;
            let layer = engine.layer_of_directory(&id, top.path()).await;
            blocking(move || {
                drop(top);
                Ok(())
            })
            .await?;
            Ok(layer?)
        });
        made.await
    }

    async fn workdir(&mut self, instruction: &Instruction) -> Result<()> {
        let shell = self.shell();
        apply::apply(&mut self.config, instruction, self.guest, &mut self.said)?;
        let directory = self.config.working_dir.clone();
        let created_by = workdir_history(&shell, &directory);
        let step = Step { config: self.config.clone(), created_by, ..Default::default() };
        if self.steps.find(&step, &self.output).await {
            return Ok(());
        }
        let empty = self.scratch("workdir-")?;
        let item = Item::Directory { path: empty.path().to_owned(), url: String::new() };
        let request = self.request("WORKDIR", vec![item], &format!("{directory}/"))?;
        let hashes = self.work.hashes.clone();
        let prepared = blocking(move || Ok(prepare(request, &hashes)?)).await?;
        let layer = self.written(prepared).await?;
        self.steps.made(step, layer, &self.output).await
    }

    /// A copy of items to a target, with nothing else asked for.
    fn request(&self, verb: &'static str, items: Vec<Item>, target: &str) -> Result<Request> {
        let separators: &[char] = if form(self.guest).windows { &['/', '\\'] } else { &['/'] };
        let last = target.rsplit(separators).next().unwrap_or_default();
        let path = self.guest.path_in_root(target, &self.config.working_dir);
        let path = path.map_err(|e| Failure::invalid(e.to_string()))?.0;
        let into = matches!(last, "" | "." | "..");
        let mut request = Request::new(verb, items, path, into, form(self.guest));
        request.lower = layers(self.work.engine, &self.steps.state)?;
        request.limits = crate::room::limits(self.work.engine)?;
        Ok(request)
    }

    /// What `--from` or `from=` names.
    async fn files(&self, from: &str) -> Result<Files> {
        let state = match self.work.plan.from(self.index, from).map_err(Failure::invalid)? {
            From::Stage(index) => self.work.stage(index).await?.state.clone(),
            From::Image(name) => Arc::new(self.work.bases().get(&name, None, &self.output).await?),
        };
        let form = form(guest_of(&state)?);
        let layers = layers(self.work.engine, &state)?;
        Ok(Files { tree: Arc::new(Tree::chain(&layers, form)), layers, form, _state: Some(state) })
    }

    async fn transfer(&mut self, verb: &'static str, transfer: &Transfer) -> Result<()> {
        let from = match &transfer.from {
            Some(from) => Some(self.files(from).await?),
            None => None,
        };
        let tree = from.as_ref().map_or(&self.work.context, |files| &files.tree).clone();
        let fetched = self.scratch("fetched-")?;
        let mut items = Vec::new();
        for source in &transfer.sources {
            items.push(match source {
                Source::Heredoc(heredoc) => {
                    Item::Bytes { name: heredoc.name.clone(), content: heredoc.body.clone().into_bytes() }
                }
                Source::Path(path) => {
                    let remote = match (verb, from.is_none()) {
                        ("ADD", true) => {
                            crate::sources::fetched(self.work, transfer, path, fetched.path()).await?
                        }
                        _ => None,
                    };
                    remote.unwrap_or_else(|| Item::Path { tree: tree.clone(), path: path.clone() })
                }
            });
        }
        let kind = match (&items[..], transfer.sources.first()) {
            ([Item::Path { path, .. }], _) => match tree.resolve(Path::new(path)) {
                Ok(found) if found.seen.as_ref().is_some_and(|seen| seen.path().is_dir()) => "dir",
                _ => "file",
            },
            ([_], _) => "file",
            _ => "multi",
        };
        let mut request = self.request(verb, items, &transfer.target)?;
        request.chown.clone_from(&transfer.chown);
        request.chmod.clone_from(&transfer.chmod);
        request.parents = transfer.parents;
        request.exclude = crate::sources::exclude(&transfer.exclude)?;
        request.unpack_local = verb == "ADD" && transfer.unpack != Some(false);
        request.unpack_fetched = transfer.unpack == Some(true);
        let flags = format!("{} {} {}", request.parents, request.unpack_local, request.unpack_fetched);
        let hashes = self.work.hashes.clone();
        let prepared = blocking(move || Ok(prepare(request, &hashes)?)).await?;
        let hash = format!("{kind}:{}", prepared.digest().hex());
        let created_by =
            transfer_history(&self.shell(), verb, transfer.chown.as_deref(), &hash, &transfer.target);
        let step =
            Step { config: self.config.clone(), created_by, meaning: vec![flags], ..Default::default() };
        if self.steps.find(&step, &self.output).await {
            return Ok(());
        }
        let layer = self.written(prepared).await?;
        self.steps.made(step, layer, &self.output).await
    }

    /// The files of a mount that shows some.
    async fn mounted(&self, kind: &MountKind) -> Result<Option<Files>> {
        match kind {
            MountKind::Bind { from: Some(from), .. } | MountKind::Cache { from: Some(from), .. } => {
                self.files(from).await.map(Some)
            }
            MountKind::Bind { from: None, .. } => {
                let tree = self.work.context.clone();
                Ok(Some(Files { tree, layers: Vec::new(), form: form(self.guest), _state: None }))
            }
            _ => Ok(None),
        }
    }

    async fn run(&mut self, run: &ast::Run) -> Result<()> {
        if let Some(security) = run.security.as_deref().filter(|s| *s != "sandbox") {
            return Err(Failure::invalid(format!("--security={security} is not allowed")));
        }
        let shell = self.shell();
        let program = run.program(&shell);
        let recorded = self.scope.recorded_arguments();
        let created_by = run_history(&program.recorded(), recorded.as_deref());
        let of_build = &self.work.request.container;
        // History joins words by blanks: what is run and what else a program may see is said apart.
        let mut meaning = vec![
            format!("{program:?} {recorded:?}"),
            format!("{:?} {:?} {:?}", run.network, of_build.network, of_build.security),
            format!(
                "{:?} {:?} {:?} {:?}",
                of_build.extra_hosts, of_build.dns, of_build.dns_search, of_build.dns_options
            ),
        ];
        let mut shown = Vec::new();
        for mount in &run.mounts {
            let files = self.mounted(&mount.kind).await?.map(Arc::new);
            let (this, of, hashes) = (mount.clone(), files.clone(), self.work.hashes.clone());
            meaning.push(blocking(move || mounts::meaning(&this, of.as_deref(), &hashes)).await?);
            shown.push(files);
        }
        let in_history = run.mounts.is_empty()
            && run.network == RunNetwork::Default
            && matches!(run.command, ast::Command::Shell(_));
        let step =
            Step { config: self.config.clone(), created_by, author: None, meaning, hidden: !in_history };
        if self.steps.find(&step, &self.output).await {
            return Ok(());
        }
        let place = Place {
            engine: self.work.engine,
            guest: self.guest,
            working_dir: &self.config.working_dir,
            scratch: self.work.scratch,
            removals: self.work.removals,
            secrets: &self.work.request.secrets,
        };
        let mut made = Mounts::locked(place, &run.mounts).await?;
        for (mount, files) in run.mounts.iter().zip(&shown) {
            made.add(place, mount, files.clone()).await?;
        }
        let mut spec = self.work.request.container.clone();
        spec.image = self.steps.state.id.to_string();
        match run.network {
            RunNetwork::Default => {}
            RunNetwork::None => spec.set_network(silo_engine::NetworkMode::None),
            RunNetwork::Host => spec.set_network(silo_engine::NetworkMode::Host),
        }
        let scripts = self.scratch("script-")?;
        let (words, escaped) = match &program {
            Program::Command(arguments) => (arguments.words.clone(), arguments.escaped),
            Program::Script { name, body, shell } => {
                let path = made.script(scripts.path(), SCRIPTS, self.guest, name, body)?;
                (shell.iter().cloned().chain([path]).collect(), false)
            }
        };
        let shown = program.recorded().join(" ");
        let config = &mut spec.config;
        (config.cmd, config.args_escaped) = (Some(words), escaped);
        config.user.clone_from(&self.config.user);
        config.working_dir.clone_from(&self.config.working_dir);
        config.env.clone_from(&self.config.env);
        config.env.extend(self.scope.arguments().into_iter().map(|(name, value)| format!("{name}={value}")));
        spec.mounts.append(&mut made.specs);
        spec.hidden_env = Hidden(std::mem::take(&mut made.variables));
        let request = self.work.request;
        let keep =
            Keep { successful: !request.remove && !request.force_remove, failed: !request.force_remove };
        let own = made.own().chain([scripts.path().to_owned()]).collect();
        let program = run::Program { spec, shown, own, held: Box::new((made, scripts)) };
        // Not while another stage is waited for, which would wait for this one's turn.
        let turn = self.work.running.acquire().await;
        let layer = run::run(self.work.engine, program, keep, self.work.removals, &mut self.output).await?;
        drop(turn);
        self.steps.made(step, layer, &self.output).await
    }
}
