//! Arguments to one Windows command line, by the rules of the Microsoft C runtime.
//!
//! Source: Microsoft, "Parsing C command-line arguments" and "Everyone quotes command line arguments the wrong way":
//! an argument with space, tab, quote or nothing in it is quoted; backslashes count only before a quote.

/// The command line that parses back to `args`. With `args_escaped` (image config `ArgsEscaped`) the first argument
/// already is a command line, and only the others are quoted.
pub(super) fn command_line(args: &[String], args_escaped: bool) -> String {
    let mut line = String::new();
    for (i, argument) in args.iter().enumerate() {
        if i > 0 {
            line.push(' ');
        }
        // cmd does not parse its command by those rules: what follows /S /C stands as it is typed.
        if (i == 0 && args_escaped) || is_shell_command(args, i) {
            line.push_str(argument);
        } else {
            quote(argument, &mut line);
        }
    }
    line
}

/// Whether argument `i` is the command of a shell form, `cmd /S /C <command>`.
fn is_shell_command(args: &[String], i: usize) -> bool {
    let is = |at: usize, names: &[&str]| {
        args.get(at).is_some_and(|a| names.iter().any(|n| a.eq_ignore_ascii_case(n)))
    };
    args.len() == 4 && i == 3 && is(0, &["cmd", "cmd.exe"]) && is(1, &["/s"]) && is(2, &["/c"])
}

fn quote(argument: &str, line: &mut String) {
    if !argument.is_empty() && !argument.contains([' ', '\t', '\n', '\u{b}', '"']) {
        line.push_str(argument);
        return;
    }
    line.push('"');
    let mut backslashes = 0;
    for c in argument.chars() {
        match c {
            '\\' => backslashes += 1,
            '"' => {
                // Those before a quote are doubled, and one more escapes the quote itself.
                line.extend(std::iter::repeat_n('\\', backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        line.push(c);
    }
    line.extend(std::iter::repeat_n('\\', backslashes));
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expected: &str) {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        assert_eq!(command_line(&args, false), expected);
    }

    #[test]
    fn plain_arguments_stay_as_they_are() {
        check(&["node", "-e", r"C:\a\b"], r"node -e C:\a\b");
    }

    #[test]
    fn spaces_quotes_and_backslashes_are_quoted() {
        check(&[r"C:\Program Files\x.exe", ""], r#""C:\Program Files\x.exe" """#);
        check(&["a", r#"say "hi""#], r#"a "say \"hi\"""#);
        check(&["a", r"dir with space\"], r#"a "dir with space\\""#);
        check(&["a", r#"\\"x"#], r#"a "\\\\\"x""#);
    }

    #[test]
    fn an_escaped_command_line_is_left_alone() {
        let args = [r#"cmd /S /C echo "a b""#.to_owned(), "c d".to_owned()];
        assert_eq!(command_line(&args, true), r#"cmd /S /C echo "a b" "c d""#);
    }

    #[test]
    fn the_shell_form_is_what_was_typed() {
        check(&["cmd", "/S", "/C", r#"echo "a b" & ver"#], r#"cmd /S /C echo "a b" & ver"#);
    }
}
