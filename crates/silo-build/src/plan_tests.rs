//! What is built of a Dockerfile, from what, and what waits for what.

use silo_image::Platform;

use crate::dockerfile::parse;
use crate::plan::{Base, From, Plan, PlanOptions};

fn options(target: Option<&str>, args: &[(&str, &str)]) -> PlanOptions {
    let platform = Platform {
        os: "linux".into(),
        architecture: "arm".into(),
        variant: "v7".into(),
        ..Default::default()
    };
    let build_platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
    let build_args = args.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect();
    PlanOptions { build_args, target: target.map(str::to_owned), platform, build_platform }
}

fn plan(text: &str, target: Option<&str>, args: &[(&str, &str)]) -> Plan {
    Plan::of(&parse(text.as_bytes()).unwrap(), &options(target, args)).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str, target: Option<&str>, expected: &str) {
    let error = Plan::of(&parse(text.as_bytes()).unwrap(), &options(target, &[])).map(|p| panic!("{p:?}"));
    assert_eq!(error.unwrap_err().to_string(), expected);
}

/// Each stage's base, what it needs, and whether it is needed.
fn check(plan: &Plan, expected: &[(Base, &[usize], bool)]) {
    let stages = plan.stages.iter().map(|s| (s.base.clone(), s.needs.iter().copied().collect(), s.needed));
    let expected = expected.iter().map(|(base, needs, needed)| (base.clone(), needs.to_vec(), *needed));
    assert_eq!(stages.collect::<Vec<(Base, Vec<usize>, bool)>>(), expected.collect::<Vec<_>>());
}

fn image(name: &str) -> Base {
    Base::Image(name.to_owned())
}

const STAGES: &str = "FROM go AS Build\nRUN a\nFROM node as web\nRUN b\nFROM x as unused\nRUN c\n\
    FROM scratch\nCOPY --from=BUILD a b\nRUN --mount=from=1,target=/x --mount=type=cache,target=/y d\nCOPY --from=nginx:1 a b\n\
    FROM build AS test\nRUN e\n";

#[test]
fn only_what_the_target_needs_is_built() {
    check(
        &plan(STAGES, Some("3"), &[]),
        &[
            (image("go"), &[], true),
            (image("node"), &[], true),
            (image("x"), &[], false),
            (Base::Scratch, &[0, 1], true),
        ],
    );
    let test = plan(STAGES, None, &[]);
    let needed: Vec<bool> = test.stages.iter().map(|s| s.needed).collect();
    assert_eq!(needed, [true, false, false, false, true]);
    assert_eq!((test.stages[4].base.clone(), test.step_count()), (Base::Stage(0), 4));
    assert_eq!(plan(STAGES, Some("WEB"), &[]).stages.len(), 2);
    assert_eq!(test.from(4, "web"), Ok(From::Stage(1)));
    assert_eq!(test.from(4, "nginx:1"), Ok(From::Image("nginx:1".into())));
    refused(STAGES, Some("tst"), "target stage \"tst\" could not be found (did you mean test?)");
}

#[test]
fn from_has_arguments_and_platforms() {
    let text = "ARG base=alpine\nARG tag\nFROM --platform=$BUILDPLATFORM ${base}:${tag:-3}-$TARGETARCH$TARGETVARIANT\nARG base\n";
    let plan = plan(text, None, &[("tag", "4"), ("x", "y"), ("no_proxy", "n"), ("z", "")]);
    check(&plan, &[(image("alpine:4-armv7"), &[], true)]);
    let platform = plan.stages[0].platform.as_ref().unwrap();
    assert_eq!((platform.os.as_str(), platform.architecture.as_str()), ("linux", "amd64"));
    assert_eq!(plan.step_count(), 4);
    assert_eq!(plan.globals.get("TARGETPLATFORM"), Some("linux/arm/v7"));
    let warning = "[Warning] One or more build-args [x z] were not consumed\n";
    assert_eq!(plan.unconsumed(["base"]).as_deref(), Some(warning));
    assert_eq!(plan.unconsumed(["x", "z"]), None);
    refused("FROM $x", None, "dockerfile parse error on line 1: FROM: base name ($x) should not be blank");
    let why = "failed to process \"${x?no}\": x: no";
    refused("FROM ${x?no}", None, &format!("dockerfile parse error on line 1: FROM: {why}"));
    refused("ARG a=${x?no}\nFROM y", None, &format!("dockerfile parse error on line 1: ARG: {why}"));
}

#[test]
fn no_stage_needs_itself_or_a_later_one() {
    let line = "dockerfile parse error on line 2: COPY: ";
    refused(
        "FROM x AS a\nCOPY --from=a b c",
        None,
        &format!("{line}invalid from flag value a: refers to current build stage"),
    );
    refused(
        "FROM x\nCOPY --from=0 b c",
        None,
        &format!("{line}invalid from flag value 0: refers to current build stage"),
    );
    refused(
        "FROM x\nCOPY --from=7 b c",
        None,
        &format!("{line}invalid from flag value 7: index out of bounds"),
    );
    let later = "FROM x\nCOPY --from=l b c\nFROM y AS l";
    let why = "cannot copy from stage \"l\", it needs to be defined before current stage";
    refused(later, Some("0"), &format!("{line}{why}"));
    refused(
        "FROM x AS a\nFROM y AS A",
        None,
        "dockerfile parse error on line 2: FROM: a stage name already used",
    );
    // An image of a later stage's name, or of its own.
    check(&plan("FROM b AS a\nFROM b AS b", None, &[]), &[(image("b"), &[], false), (image("b"), &[], true)]);
}

#[test]
fn triggers_of_stages_and_images_need_stages_too() {
    let text = "FROM x AS files\nFROM x AS base\nONBUILD COPY --from=files a b\nFROM base\nRUN y";
    let plan = plan(text, None, &[]);
    check(&plan, &[(image("x"), &[], true), (image("x"), &[], true), (Base::Stage(1), &[0, 1], true)]);
    let texts = ["RUN <<E\nx\nE", "COPY --from=base a b"].map(str::to_owned);
    let triggers = plan.triggers(2, &texts).unwrap();
    assert_eq!((triggers.steps.len(), triggers.needs.into_iter().collect::<Vec<_>>()), (2, vec![1]));
    for (text, why) in [
        ("ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM x", "FROM is not allowed here"),
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("FOOBAR b", "unknown instruction: FOOBAR"),
        ("COPY --from=9 a b", "COPY: invalid from flag value 9: index out of bounds"),
    ] {
        assert_eq!(plan.triggers(2, &[text.to_owned()]).unwrap_err().to_string(), why);
    }
}
