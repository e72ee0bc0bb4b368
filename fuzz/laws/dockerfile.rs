//! Any bytes as a Dockerfile: parsed or refused; what is parsed is planned, expanded and run or refused; nothing grows without bound.

use std::collections::BTreeMap;

use silo_build::dockerfile::ast::Instruction;
use silo_build::dockerfile::{Scope, Shell, comment, parse};
use silo_build::ignore::Ignore;
use silo_build::plan::{Plan, PlanOptions};

/// Most bytes that come of one instruction, as text: 16 MiB and what names it.
const MOST: usize = 40 << 20;

pub(super) fn check(bytes: &[u8]) {
    if let Ok(ignore) = Ignore::parse(bytes) {
        for path in ["a", "a/b/c", "src/x.rs"] {
            // What is wanted is found by who looks below the directories that may want something.
            let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
            assert!(ignore.is_ignored(path) || above.all(|d| ignore.may_want_below(d)), "{path}");
        }
    }
    let Ok(file) = parse(bytes) else { return };
    let build_args =
        BTreeMap::from([("a".to_owned(), Some("1 2".to_owned())), ("HTTP_PROXY".to_owned(), None)]);
    let Ok(plan) = Plan::of(&file, &PlanOptions { build_args, ..PlanOptions::default() }) else { return };
    for (index, stage) in plan.stages.iter().enumerate() {
        assert!(stage.needs.iter().all(|need| *need < index), "a stage needs one before it only");
        let mut scope = Scope::new(&plan.globals, plan.escape, &["PATH=/bin".to_owned()], index % 2 == 0);
        for step in &stage.steps {
            let Ok(expanded) = step.expand(&scope) else { break };
            for one_line in [false, true] {
                let shell = Shell { words: vec!["cmd".to_owned(), "/C".to_owned()], one_line };
                if let Instruction::Run(run) = &expanded {
                    drop(run.program(&shell).recorded());
                }
                assert!(comment(&expanded, &shell).is_none_or(|text| text.len() < MOST));
            }
            if scope.apply(&expanded).is_err() {
                break;
            }
        }
    }
}
