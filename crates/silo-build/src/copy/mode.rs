//! `--chmod`: octal, or symbolic as chmod(1) takes it.

/// What becomes of a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModeChange {
    /// It is this.
    Set(u32),
    /// These are done in order.
    Clauses(Vec<Clause>),
}

/// `who op permissions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// Out of `ugo`, as the bits that are theirs.
    who: u32,
    operation: char,
    /// `rwx` for one class, in the lowest three bits.
    bits: u32,
    /// `X`: execution for directories and what somebody may execute.
    executable: bool,
    set_id: bool,
    sticky: bool,
    /// A class whose permissions are copied: its shift.
    copied: Option<u32>,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

impl ModeChange {
    /// Parses; the error is what dockerd says.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Set).ok_or_else(invalid);
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let mut rest = clause.chars().peekable();
            let mut who = 0;
            while let Some(class) = rest.next_if(|c| "ugoa".contains(*c)) {
                who |= match class {
                    'u' => USER,
                    'g' => GROUP,
                    'o' => OTHER,
                    _ => USER | GROUP | OTHER,
                };
            }
            if who == 0 {
                who = USER | GROUP | OTHER;
            }
            if rest.peek().is_none() {
                return Err(invalid());
            }
            while let Some(operation) = rest.next() {
                if !"+-=".contains(operation) {
                    return Err(invalid());
                }
                let mut one = Clause {
                    who,
                    operation,
                    bits: 0,
                    executable: false,
                    set_id: false,
                    sticky: false,
                    copied: None,
                };
                while let Some(permission) = rest.next_if(|c| "rwxXstugo".contains(*c)) {
                    match permission {
                        'r' => one.bits |= 4,
                        'w' => one.bits |= 2,
                        'x' => one.bits |= 1,
                        'X' => one.executable = true,
                        's' => one.set_id = true,
                        't' => one.sticky = true,
                        'u' => one.copied = Some(6),
                        'g' => one.copied = Some(3),
                        _ => one.copied = Some(0),
                    }
                }
                clauses.push(one);
            }
        }
        Ok(Self::Clauses(clauses))
    }

    /// The mode (12 bits) that a node of this mode gets.
    pub(super) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            Self::Set(mode) => return *mode,
            Self::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(mode & 0o7777, |mode, clause| {
            let execute = clause.executable && (is_directory || mode & 0o111 != 0);
            let copied = clause.copied.map_or(0, |shift| mode >> shift & 7);
            let class = clause.bits | u32::from(execute) | copied;
            let mut bits = class << 6 | class << 3 | class;
            if clause.set_id {
                bits |= 0o6000;
            }
            if clause.sticky {
                bits |= 0o1000;
            }
            let bits = bits & clause.who;
            match clause.operation {
                '+' => mode | bits,
                '-' => mode & !bits,
                // A directory's set-id bits go only when they are named.
                _ => mode & !(clause.who & if is_directory { 0o1777 } else { 0o7777 }) | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_by_chmod() {
        let check = |text: &str, from: u32, directory: bool, to: u32| {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(from, directory), to, "{text} of {from:o}");
        };
        check("755", 0o644, false, 0o755);
        check("04711", 0o644, true, 0o4711);
        check("u=rwX,go=rX", 0o600, false, 0o644);
        check("u=rwX,go=rX", 0o700, false, 0o755);
        check("u=rwX,go=rX", 0o600, true, 0o755);
        check("a+x", 0o644, false, 0o755);
        check("+x", 0o644, false, 0o755);
        check("go-rwx", 0o777, false, 0o700);
        check("u+s,o+t", 0o755, false, 0o5755);
        check("g=u", 0o640, false, 0o660);
        check("g+w-x", 0o755, false, 0o765);
        check("u=", 0o755, false, 0o055);
        for bad in ["", "8", "10000", "u", "x=r", "u=q", "u+r,", "rw"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}
