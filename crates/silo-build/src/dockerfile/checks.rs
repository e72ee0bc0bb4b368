//! What is right by the language and yet likely not meant: BuildKit's build checks, by its names and in its words.
//!
//! [`check`] looks at a file; [`undefined`] at one step, where it is known what its variables are. `# check=` says what is not
//! to be told, and whether anything that is told makes the build fail.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use silo_image::{Platform, Reference};

use super::ast::{Argument, CheckOptions, Command, Dockerfile, Instruction, Stage, Step};
use super::scope::{PREDEFINED, Scope};
use super::shell_words::Reading;
use super::words::{fields, first, go_quote, split, suggest};

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Line of the file.
    pub line: u32,
    /// BuildKit's name of the rule.
    pub rule: &'static str,
    /// What is to be told.
    pub message: String,
}

/// Reads the value of `# check=`: `skip=Rule,Rule;error=true`.
pub(super) fn options(text: &str) -> Result<CheckOptions, String> {
    let mut options = CheckOptions::default();
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let invalid = |what: &str| format!("invalid check option {}", go_quote(what));
        let (key, value) = part.split_once('=').ok_or_else(|| invalid(part))?;
        let value = value.trim();
        match key.trim() {
            "skip" if value == "all" => options.skip_all = true,
            "skip" => options.skip = value.split(',').map(|rule| rule.trim().to_owned()).collect(),
            "error" => {
                options.error = match value {
                    "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                    "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                    _ => {
                        return Err(format!(
                            "failed to parse check option {}: invalid syntax",
                            go_quote(part)
                        ));
                    }
                }
            }
            // Rules that are looked for only if asked for: there are none here.
            "experimental" => {}
            key => return Err(invalid(key)),
        }
    }
    Ok(options)
}

impl CheckOptions {
    /// Whether a rule's findings are told.
    pub fn wants(&self, rule: &str) -> bool {
        !self.skip_all && !self.skip.iter().any(|skipped| skipped == rule)
    }

    /// Of a build argument that takes the directive's place (`BUILDKIT_DOCKERFILE_CHECK`).
    ///
    /// # Errors
    /// It is no such text.
    pub fn parse(text: &str) -> Result<Self, String> {
        options(text)
    }
}

/// The build argument that takes the place of `# check=`.
pub const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Looks at a whole file. `needed`: whether a stage, by its index, is built; of others only names and letters count.
pub fn check(file: &Dockerfile, needed: &dyn Fn(usize) -> bool) -> Vec<Warning> {
    let mut found = Findings { file, all: BTreeSet::new() };
    found.casing();
    let mut ends: Vec<End> = Vec::new();
    for (index, stage) in file.stages.iter().enumerate() {
        found.from(stage);
        let base = |end: &&(usize, &Stage)| end.1.name.as_deref() == Some(stage.from.to_lowercase().as_str());
        let before = file.stages[..index].iter().enumerate().collect::<Vec<_>>();
        let begin = before.iter().rfind(base).and_then(|(at, _)| ends.get(*at)).cloned().unwrap_or_default();
        ends.push(match needed(index) {
            true => found.steps(stage, begin),
            false => begin,
        });
    }
    for (argument, lines) in &file.arguments {
        found.secret("ARG", &argument.name, lines.first);
    }
    for lines in &file.empty_continuations {
        found.add("NoEmptyContinuation", lines.first, "Empty continuation line".to_owned());
    }
    found.all.into_iter().collect()
}

/// What of a stage counts in those that begin with it.
#[derive(Debug, Clone, Default)]
struct End {
    shell: bool,
    directory: bool,
}

struct Findings<'f> {
    file: &'f Dockerfile,
    all: BTreeSet<Warning>,
}

fn keyword(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

impl Findings<'_> {
    fn add(&mut self, rule: &'static str, line: u32, message: String) {
        self.all.insert(Warning { line, rule, message });
    }

    /// Keywords are written as most of them are.
    fn casing(&mut self) {
        let stages = self.file.stages.iter();
        let all: Vec<(u32, &str)> = stages
            .flat_map(|stage| {
                let steps = stage.steps.iter().map(|step| (step.lines.first, keyword(&step.text)));
                std::iter::once((stage.lines.first, keyword(&stage.text))).chain(steps)
            })
            .collect();
        let lower = all.iter().filter(|(_, word)| is_lower(word)).count();
        let upper = all.iter().filter(|(_, word)| is_upper(word)).count();
        for (line, word) in all {
            let casing = match lower > upper {
                true if !is_lower(word) => "lowercase",
                false if !is_upper(word) => "uppercase",
                _ => continue,
            };
            let message =
                format!("Command '{word}' should match the case of the command majority ({casing})");
            self.add("ConsistentInstructionCasing", line, message);
        }
    }

    fn from(&mut self, stage: &Stage) {
        let line = stage.lines.first;
        let (from, _, rest) = split(&stage.text, self.file.escape);
        if let [_, r#as, name] = fields(rest).as_slice() {
            if is_upper(from) && !is_upper(r#as) || is_lower(from) && !is_lower(r#as) {
                let message = format!("'{as}' and '{from}' keywords' casing do not match");
                self.add("FromAsCasing", line, message);
            }
            if !is_lower(name) {
                self.add("StageNameCasing", line, format!("Stage name '{name}' should be lowercase"));
            }
        }
        if let Some(name @ ("scratch" | "context")) = stage.name.as_deref() {
            let message =
                format!("Stage name should not use the same name as reserved stage {}", go_quote(name));
            self.add("ReservedStageName", line, message);
        }
        self.arguments_of_from(stage);
        let Some(platform) = &stage.platform else { return };
        if matches!(platform.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            );
            return self.add("RedundantTargetPlatform", line, message);
        }
        // Only an image for another OS has to be asked for: here a build may have stages of both.
        let constant = Platform::parse(platform).ok().filter(|p| !platform.contains('$') && p.os == "linux");
        let name = stage.name.as_deref().unwrap_or_default();
        if constant.is_some_and(|p| !name.contains(&p.os) && !name.contains(&p.architecture)) {
            let message =
                format!("FROM --platform flag should not use constant value {}", go_quote(platform));
            self.add("FromPlatformFlagConstDisallowed", line, message);
        }
    }

    fn arguments_of_from(&mut self, stage: &Stage) {
        let line = stage.lines.first;
        let mut declared: BTreeMap<String, Option<String>> = BTreeMap::new();
        let escape = self.file.escape;
        for (Argument { name, default }, _) in &self.file.arguments {
            let lookup = |name: &str| declared.get(name).cloned().flatten();
            let value = default.as_ref().map(|word| Reading::new(escape, &lookup).word(word));
            // What is wrong with it is told elsewhere.
            let Ok(value) = value.transpose() else { return };
            declared.insert(name.clone(), value);
        }
        let platform = |name: &str| {
            let name = name.strip_prefix("TARGET").or(name.strip_prefix("BUILD")).unwrap_or_default();
            matches!(name, "PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT" | "STAGE")
        };
        let unset = RefCell::new(BTreeSet::new());
        let lookup = |name: &str| declared.get(name).cloned().flatten();
        let tell = |name: &str| unset.borrow_mut().extend([name.to_owned()]);
        let reading = Reading { unset: Some(&tell), ..Reading::new(escape, &lookup) };
        let base = reading.word(&stage.from);
        let _ = stage.platform.as_ref().map(|word| reading.word(word));
        let mut has_other = false;
        for name in unset.borrow().iter() {
            if declared.contains_key(name) {
                continue;
            }
            has_other = true;
            if platform(name) || PREDEFINED.contains(&name.as_str()) {
                continue;
            }
            let meant = suggest(name, declared.keys().map(String::as_str));
            let meant = meant.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
            self.add("UndefinedArgInFrom", line, format!("FROM argument '{name}' is not declared{meant}"));
        }
        let Ok(base) = base else { return };
        if stage.from.contains('$') && !has_other && Reference::parse(&base).is_err() && base != "scratch" {
            let why = "results in empty or invalid base image name";
            self.add("InvalidDefaultArgInFrom", line, format!("Default value for ARG {} {why}", stage.from));
        }
    }

    fn secret(&mut self, instruction: &str, name: &str, line: u32) {
        if is_secret(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
                go_quote(name)
            );
            self.add("SecretsUsedInArgOrEnv", line, message);
        }
    }

    fn steps(&mut self, stage: &Stage, mut end: End) -> End {
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        for step in &stage.steps {
            let line = step.lines.first;
            let mut once = |this: &mut Self, name: &'static str| {
                if let Some(before) = used.insert(name, line) {
                    let message = format!(
                        "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                    );
                    this.add("MultipleInstructionsDisallowed", before, message);
                }
            };
            match &step.instruction {
                Instruction::Cmd(command) => {
                    once(self, "CMD");
                    self.shell_form("CMD", command, end.shell, line);
                }
                Instruction::Entrypoint(command) => {
                    once(self, "ENTRYPOINT");
                    self.shell_form("ENTRYPOINT", command, end.shell, line);
                }
                Instruction::Healthcheck(_) => once(self, "HEALTHCHECK"),
                Instruction::Maintainer(_) => {
                    let message = "Maintainer instruction is deprecated in favor of using label";
                    self.add("MaintainerDeprecated", line, message.to_owned());
                }
                Instruction::Shell(_) => end.shell = true,
                Instruction::Workdir(path) => {
                    let absolute = path.starts_with(['/', '\\', '$', '"', '\''])
                        || path.as_bytes().get(1) == Some(&b':');
                    if !std::mem::replace(&mut end.directory, true) && !absolute {
                        let path = go_quote(path);
                        let message = format!(
                            "Relative workdir {path} can have unexpected results if the base image changes"
                        );
                        self.add("WorkdirRelativePath", line, message);
                    }
                }
                Instruction::Arg(list) => list.iter().for_each(|a| self.secret("ARG", &a.name, line)),
                Instruction::Env(pairs) => {
                    pairs.iter().for_each(|(name, _)| self.secret("ENV", name, line));
                    self.legacy("ENV", step);
                }
                Instruction::Label(_) => self.legacy("LABEL", step),
                Instruction::Expose(ports) => ports.iter().for_each(|port| self.port(port, line)),
                _ => {}
            }
        }
        end
    }

    fn shell_form(&mut self, name: &str, command: &Command, shell: bool, line: u32) {
        if matches!(command, Command::Shell(text) if !text.is_empty()) && !shell {
            let message = format!(
                "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
            );
            self.add("JSONArgsRecommended", line, message);
        }
    }

    fn legacy(&mut self, name: &str, step: &Step) {
        let (_, _, rest) = split(&step.text, self.file.escape);
        if !first(rest).0.contains('=') {
            let message =
                format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            self.add("LegacyKeyValueFormat", step.lines.first, message);
        }
    }

    fn port(&mut self, word: &str, line: u32) {
        if word.contains('$') {
            return;
        }
        if word.contains(':') {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            );
            self.add("ExposeInvalidFormat", line, message);
        }
        if word.split_once('/').is_some_and(|(_, protocol)| !is_lower(protocol)) {
            let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            self.add("ExposeProtoCasing", line, message);
        }
    }
}

/// Whether a name is one that secrets have: a word of it says so, and none says that it is not the secret itself.
fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const NOT: [&str; 3] = ["public", "file", "version"];
    let lower = name.to_lowercase();
    let any = |of: &[&str]| lower.split('_').any(|word| of.contains(&word));
    any(&SECRET) && !any(&NOT)
}

/// Variables of a step that nothing has set or declared, at what `scope` has there.
pub fn undefined(step: &Step, scope: &Scope) -> Vec<Warning> {
    let unset = RefCell::new(BTreeSet::new());
    let tell = |name: &str| unset.borrow_mut().extend([name.to_owned()]);
    // What is wrong with it is told by who takes the step.
    let _ = step.instruction.expand_telling(scope, Some(&tell));
    let in_argument = matches!(step.instruction, Instruction::Arg(_));
    let names = unset.into_inner();
    let names = names.iter().filter(|name| !scope.declares(name, in_argument));
    let environment = scope.environment();
    let known = || environment.iter().filter_map(|entry| Some(entry.split_once('=')?.0));
    names
        .map(|name| {
            let meant = suggest(name, known()).map(|name| format!(" (did you mean ${name}?)"));
            let message = format!("Usage of undefined variable '${name}'{}", meant.unwrap_or_default());
            Warning { line: step.lines.first, rule: "UndefinedVar", message }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::{Globals, parse};
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let file = parse(text.as_bytes()).unwrap();
        let told = |w: &Warning| format!("{}:{} {}", w.line, w.rule, w.message);
        check(&file, &|_| true).iter().map(told).collect()
    }

    fn rules(text: &str) -> Vec<&'static str> {
        let file = parse(text.as_bytes()).unwrap();
        check(&file, &|_| true).into_iter().map(|warning| warning.rule).collect()
    }

    #[test]
    fn a_clean_file_has_nothing_to_tell() {
        let clean = "ARG TAG=1\nFROM busybox:$TAG AS build\nARG TARGETOS\nENV A=b C=d\nWORKDIR /app\nWORKDIR sub\n\
            EXPOSE 80 53/udp\nHEALTHCHECK CMD true\nSHELL [\"/bin/sh\", \"-c\"]\nCMD echo by a shell that was chosen\n\
            FROM build\nCMD inherited\nWORKDIR further\nCMD [\"b\"]\nLABEL a=b\n";
        // The last stage's first CMD is the one fault.
        assert_eq!(rules(clean), ["MultipleInstructionsDisallowed"]);
        assert!(rules("from a as b\nrun x\nentrypoint [\"x\"]\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_fault() {
        assert_eq!(
            found("FROM a as Build\ncmd x\nRUN y\n"),
            [
                "1:FromAsCasing 'as' and 'FROM' keywords' casing do not match",
                "1:StageNameCasing Stage name 'Build' should be lowercase",
                "2:ConsistentInstructionCasing Command 'cmd' should match the case of the command majority (uppercase)",
                "2:JSONArgsRecommended JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ]
        );
        assert_eq!(
            found("from a\nrun x\nCopy a b\n"),
            [
                "3:ConsistentInstructionCasing Command 'Copy' should match the case of the command majority (lowercase)"
            ]
        );
        assert_eq!(
            found("FROM a AS scratch\nMAINTAINER me\nWORKDIR app\n"),
            [
                "1:ReservedStageName Stage name should not use the same name as reserved stage \"scratch\"",
                "2:MaintainerDeprecated Maintainer instruction is deprecated in favor of using label",
                "3:WorkdirRelativePath Relative workdir \"app\" can have unexpected results if the base image changes",
            ]
        );
        assert_eq!(
            found("FROM a\nENV a b\nLABEL c d\nCMD [\"x\"]\nCMD [\"y\"]\nEXPOSE 1:80/TCP\n"),
            [
                "2:LegacyKeyValueFormat \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
                "3:LegacyKeyValueFormat \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
                "4:MultipleInstructionsDisallowed Multiple CMD instructions should not be used in the same stage because only the last one will be used",
                "6:ExposeInvalidFormat EXPOSE instruction should not define an IP address or host-port mapping, found '1:80/TCP'",
                "6:ExposeProtoCasing Defined protocol '1:80/TCP' in EXPOSE instruction should be lowercase",
            ]
        );
        assert_eq!(
            found(
                "FROM a\nRUN a \\\n\n  b\nARG API_KEY PUBLIC_KEY KEYBOARD\nENV DB_PASSWORD=x TOKEN_FILE=/t\n"
            ),
            [
                "2:NoEmptyContinuation Empty continuation line",
                "5:SecretsUsedInArgOrEnv Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\")",
                "6:SecretsUsedInArgOrEnv Do not use ARG or ENV instructions for sensitive data (ENV \"DB_PASSWORD\")",
            ]
        );
    }

    #[test]
    fn arguments_and_platforms_of_from() {
        assert_eq!(
            found(
                "ARG VERSION TAG\nFROM a:$VERSON\nFROM a:$TAG\nFROM $TAG\nFROM a:${TAG:-1}\nFROM --platform=$TARGETPLATFORM a\n"
            ),
            [
                "2:UndefinedArgInFrom FROM argument 'VERSON' is not declared (did you mean VERSION?)",
                "3:InvalidDefaultArgInFrom Default value for ARG a:$TAG results in empty or invalid base image name",
                "4:InvalidDefaultArgInFrom Default value for ARG $TAG results in empty or invalid base image name",
                "6:RedundantTargetPlatform Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ]
        );
        assert_eq!(
            rules(
                "FROM --platform=linux/amd64 a\nFROM --platform=linux/amd64 a AS a-linux\nFROM --platform=windows/amd64 a\n\
                FROM --platform=$BUILDPLATFORM a\n"
            ),
            ["FromPlatformFlagConstDisallowed"]
        );
    }

    #[test]
    fn only_stages_that_are_built_count() {
        let file = parse(b"FROM a AS b\nCMD x\nFROM a\n").unwrap();
        assert!(check(&file, &|index| index == 1).is_empty());
    }

    #[test]
    fn variables_that_nothing_sets() {
        let file = parse(
            b"FROM a\nCOPY $A ${B:-c} $HOME /\nENV HOM=$HOMEE\nRUN echo $NOT_OURS\nARG X=$GLOBAL\nUSER $GLOBAL$http_proxy\n",
        )
        .unwrap();
        let mut globals = Globals::new(BTreeMap::new(), BTreeMap::new());
        let declared = parse(b"ARG GLOBAL=1\nFROM a\n").unwrap();
        globals.declare(&declared.global_steps()[0], '\\').unwrap();
        let scope = Scope::new(&Arc::new(globals), '\\', &["HOME=/root".to_owned()], true);
        let told: Vec<String> =
            file.stages[0].steps.iter().flat_map(|s| undefined(s, &scope)).map(|w| w.message).collect();
        assert_eq!(
            told,
            [
                "Usage of undefined variable '$A'",
                "Usage of undefined variable '$HOMEE' (did you mean $HOME?)",
                "Usage of undefined variable '$GLOBAL'",
            ]
        );
    }

    #[test]
    fn options_are_read() {
        let read = |text: &str| options(text).unwrap();
        let some = read("skip=JSONArgsRecommended, StageNameCasing;error=true");
        assert!(some.error && !some.wants("StageNameCasing") && some.wants("FromAsCasing"));
        assert!(!read("skip=all").wants("FromAsCasing") && !read("").error);
        assert_eq!(options("x=1").unwrap_err(), "invalid check option \"x\"");
        assert_eq!(options("skip").unwrap_err(), "invalid check option \"skip\"");
        assert!(options("error=maybe").is_err());
        let of_file = parse(b"# check=skip=all;error=true\nFROM a\n").unwrap();
        assert!(of_file.checks.skip_all && of_file.checks.error);
        let wrong = parse(b"# syntax=x\n# check=no\nFROM a\n").unwrap_err().to_string();
        assert!(wrong.contains("line 2") && wrong.contains("invalid check option \"no\""), "{wrong}");
    }
}
