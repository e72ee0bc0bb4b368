//! Stages of a Dockerfile → what is to be built for a target, from what, and which stage waits for which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use silo_image::Platform;

use crate::dockerfile::ast::{Dockerfile, Instruction, Lines, Stage, Step};
use crate::dockerfile::{
    CHECK_ARGUMENT, DockerfileError, Globals, PREDEFINED, Result, expand_word, mount_from, parse_steps,
    suggest,
};

/// What a build was asked for.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// `--build-arg`; `None`: named without a value.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--target`: a stage's name.
    pub target: Option<String>,
    /// What is built for.
    pub platform: Platform,
    /// What builds.
    pub build_platform: Platform,
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// `FROM scratch`.
    Scratch,
    /// An image's name.
    Image(String),
    /// Another stage: its index.
    Stage(usize),
}

/// Where files come from (`COPY --from`, `RUN --mount=from`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A stage: its index.
    Stage(usize),
    /// An image's name.
    Image(String),
}

/// A stage whose `FROM` is final.
#[derive(Debug, Clone)]
pub struct PlannedStage {
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// What it begins with.
    pub base: Base,
    /// `--platform`.
    pub platform: Option<Platform>,
    /// Stages that must be whole before all its steps can be done, by index; those of its base's triggers among them, as
    /// far as the base is a stage.
    pub needs: BTreeSet<usize>,
    /// Whether the target needs it, or is it. The triggers of an image may need more: see [`Plan::triggers`].
    pub needed: bool,
    /// As written: `FROM x AS y`.
    pub text: String,
    /// Of the `FROM`.
    pub lines: Lines,
    /// Unexpanded.
    pub steps: Vec<Step>,
}

/// A build's stages.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the file's order, up to the target, which is the last one. One needs only stages before it: those of which none
    /// needs the other may be built at once.
    pub stages: Vec<PlannedStage>,
    /// `ARG`s before the first `FROM`, with their text.
    pub arguments: Vec<Step>,
    /// For the scopes of the stages.
    pub globals: Arc<Globals>,
    /// `\` or `` ` ``.
    pub escape: char,
    /// Names of stages after the target too, with their indexes.
    names: BTreeMap<String, usize>,
}

/// Instructions that a base image brings.
#[derive(Debug, Clone, Default)]
pub struct Triggers {
    /// What is to be done right after the `FROM`; lines are 0.
    pub steps: Vec<Step>,
    /// Stages that they need.
    pub needs: BTreeSet<usize>,
}

impl Plan {
    /// Plans the build of a Dockerfile.
    ///
    /// # Errors
    /// An `ARG` or `FROM` that cannot be expanded, a platform that is none, two stages of one name, a target that is not there,
    /// or a stage that needs itself or a later one.
    pub fn of(file: &Dockerfile, options: &PlanOptions) -> Result<Self> {
        let mut globals =
            Globals::new(options.build_args.clone(), platform_arguments(options, target_name(file, options)));
        let arguments = file.global_steps();
        for step in &arguments {
            globals.declare(step, file.escape)?;
        }
        let mut plan = Self {
            stages: Vec::new(),
            arguments,
            globals: Arc::new(globals),
            escape: file.escape,
            names: names(file)?,
        };
        let last = plan.target(options.target.as_deref(), file.stages.len())?;
        for stage in &file.stages[..=last] {
            let planned = plan.stage(stage)?;
            plan.stages.push(planned);
        }
        plan.mark(last);
        Ok(plan)
    }

    fn target(&self, target: Option<&str>, stages: usize) -> Result<usize> {
        let Some(target) = target.filter(|t| !t.is_empty()) else { return Ok(stages - 1) };
        let index = target.parse::<usize>().ok().filter(|i| *i < stages);
        self.names.get(&target.to_lowercase()).copied().or(index).ok_or_else(|| {
            let why = format!("target stage {target:?} could not be found");
            let why = match suggest(&target.to_lowercase(), self.names.keys().map(String::as_str)) {
                Some(name) => format!("{why} (did you mean {name}?)"),
                None => why,
            };
            DockerfileError { lines: Lines::default(), instruction: String::new(), message: why }
        })
    }

    fn stage(&self, stage: &Stage) -> Result<PlannedStage> {
        let index = self.stages.len();
        let wrong =
            |message: String| DockerfileError { lines: stage.lines, instruction: "FROM".to_owned(), message };
        let lookup = |name: &str| self.globals.get(name).map(str::to_owned);
        let from = expand_word(&stage.from, self.escape, &lookup).map_err(wrong)?;
        if from.is_empty() {
            return Err(wrong(format!("base name ({}) should not be blank", stage.from)));
        }
        let platform = match &stage.platform {
            None => None,
            Some(text) => {
                let text = expand_word(text, self.escape, &lookup).map_err(wrong)?;
                let platform = Platform::parse(&text);
                let platform =
                    platform.map_err(|e| wrong(format!("failed to parse platform {text}: {e}")))?;
                Some(platform)
            }
        };
        // A later stage of that name is not there yet: then it is an image's.
        let base = match self.names.get(&from.to_lowercase()) {
            Some(stage) if *stage < index => Base::Stage(*stage),
            _ if from == "scratch" => Base::Scratch,
            _ => Base::Image(from),
        };
        let mut needs = self.needs(index, &stage.steps)?;
        if let Base::Stage(base) = base {
            needs.insert(base);
            let texts: Vec<String> = triggers_of(&self.stages[base].steps);
            needs.extend(self.triggers(index, &texts)?.needs);
        }
        Ok(PlannedStage {
            name: stage.name.clone(),
            base,
            platform,
            needs,
            needed: false,
            text: stage.text.clone(),
            lines: stage.lines,
            steps: stage.steps.clone(),
        })
    }

    /// Stages that steps of stage `index` name.
    fn needs(&self, index: usize, steps: &[Step]) -> Result<BTreeSet<usize>> {
        let mut needs = BTreeSet::new();
        for step in steps {
            let wrong = |why: String| DockerfileError::at(step, why);
            let froms: Vec<String> = match &step.instruction {
                Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
                Instruction::Run(run) => {
                    let froms = run.mount_flags.iter().filter_map(|m| mount_from(m).transpose());
                    froms.collect::<Result<_, String>>().map_err(wrong)?
                }
                _ => continue,
            };
            for from in froms {
                if let From::Stage(stage) = self.from(index, &from).map_err(wrong)? {
                    needs.insert(stage);
                }
            }
        }
        Ok(needs)
    }

    /// What `--from=NAME` is in stage `index`: a stage by its name or number, else an image.
    ///
    /// # Errors
    /// The stage is this one, or a later one.
    pub fn from(&self, index: usize, name: &str) -> Result<From, String> {
        let number = name.parse::<usize>().ok();
        let found = self.names.get(&name.to_lowercase()).copied();
        match found.or(number) {
            Some(stage) if stage < index => Ok(From::Stage(stage)),
            Some(stage) if stage == index => {
                Err(format!("invalid from flag value {name}: refers to current build stage"))
            }
            Some(_) if found.is_some() => {
                Err(format!("cannot copy from stage {name:?}, it needs to be defined before current stage"))
            }
            Some(_) => Err(format!("invalid from flag value {name}: index out of bounds")),
            None => Ok(From::Image(name.to_owned())),
        }
    }

    /// The triggers (`ONBUILD`) of the image that stage `index` begins with. What they need may not be
    /// [`PlannedStage::needed`] yet.
    ///
    /// # Errors
    /// A trigger that is no instruction, or not one only; one that needs a stage that is not before this one.
    pub fn triggers(&self, index: usize, texts: &[String]) -> Result<Triggers> {
        let mut steps = Vec::new();
        for text in texts {
            let bring = |mut e: DockerfileError| {
                e.lines = Lines::default();
                e
            };
            let mut parsed = parse_steps(text.as_bytes()).map_err(bring)?;
            let step = match (parsed.pop(), parsed.is_empty()) {
                (Some(step), true) => Step { lines: Lines::default(), ..step },
                _ => {
                    let message = "onbuild trigger should be a single expression".to_owned();
                    return Err(DockerfileError {
                        lines: Lines::default(),
                        instruction: String::new(),
                        message,
                    });
                }
            };
            if matches!(step.instruction, Instruction::Onbuild(_)) {
                return Err(DockerfileError::at(
                    &step,
                    "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                ));
            }
            steps.push(step);
        }
        let needs = self.needs(index, &steps)?;
        Ok(Triggers { steps, needs })
    }

    /// Marks what the target needs.
    fn mark(&mut self, target: usize) {
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut self.stages[index].needed, true) {
                open.extend(self.stages[index].needs.iter().copied());
            }
        }
    }

    /// Instructions of the build, `FROM`s and `ARG`s before them too: `n` of `Step 1/n`.
    pub fn step_count(&self) -> usize {
        let needed = self.stages.iter().filter(|s| s.needed);
        self.arguments.len() + needed.map(|s| 1 + s.steps.len()).sum::<usize>()
    }

    /// dockerd's line about build arguments that nothing took; `declared`: what the stages' scopes declared.
    pub fn unconsumed<'n>(&self, declared: impl IntoIterator<Item = &'n str>) -> Option<String> {
        let declared: BTreeSet<&str> = declared.into_iter().collect();
        let given = self.globals.given.keys().map(String::as_str);
        let left: Vec<&str> = given
            .filter(|name| !declared.contains(name) && !PREDEFINED.contains(name) && *name != CHECK_ARGUMENT)
            .filter(|name| !self.globals.declared.contains_key(*name))
            .collect();
        let names = left.join(" ");
        (!left.is_empty()).then(|| format!("[Warning] One or more build-args [{names}] were not consumed\n"))
    }
}

/// Stages' names, each once.
fn names(file: &Dockerfile) -> Result<BTreeMap<String, usize>> {
    let mut names = BTreeMap::new();
    for (index, stage) in file.stages.iter().enumerate() {
        let Some(name) = &stage.name else { continue };
        if names.insert(name.clone(), index).is_some() {
            let message = format!("{name} stage name already used");
            return Err(DockerfileError { lines: stage.lines, instruction: "FROM".to_owned(), message });
        }
    }
    Ok(names)
}

/// What a stage leaves to those that begin with it.
fn triggers_of(steps: &[Step]) -> Vec<String> {
    let texts = steps.iter().filter_map(|s| match &s.instruction {
        Instruction::Onbuild(text) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

fn target_name(file: &Dockerfile, options: &PlanOptions) -> String {
    let last = file.stages.last().and_then(|s| s.name.clone());
    options.target.clone().filter(|t| !t.is_empty()).or(last).unwrap_or_else(|| "default".to_owned())
}

/// Arguments that say what is built for and by what.
fn platform_arguments(options: &PlanOptions, stage: String) -> BTreeMap<&'static str, String> {
    let (target, build) = (&options.platform, &options.build_platform);
    let text = |p: &Platform| {
        let parts = [&p.os, &p.architecture, &p.variant].map(String::as_str);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    };
    BTreeMap::from([
        ("TARGETPLATFORM", text(target)),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", target.os_version.clone()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage),
        ("BUILDPLATFORM", text(build)),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
    ])
}
