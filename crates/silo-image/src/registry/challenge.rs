//! `Www-Authenticate` (RFC 9110, 11.6.1): what a registry wants to be told.

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token, from `realm` (distribution specification, "Token Authentication").
    Bearer { realm: String, service: String, scope: String },
}

/// The challenges of one header that are understood; a header may hold several, separated by commas like their parameters.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        if let (Some(value), false) = (after.strip_prefix('='), word.is_empty()) {
            let (value, after) = value_of(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_lowercase(), value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                found.push((word.to_lowercase(), Vec::new()));
            }
            // A stray sign that belongs to nothing must not stop the loop.
            rest = if word.is_empty() { after.get(1..).unwrap_or_default() } else { after };
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
        .into_iter()
        .filter_map(|(scheme, parameters)| {
            let get = |name: &str| {
                parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
            };
            match scheme.as_str() {
                "basic" => Some(Challenge::Basic),
                "bearer" if !get("realm").is_empty() => Some(Challenge::Bearer {
                    realm: get("realm"),
                    service: get("service"),
                    scope: get("scope"),
                }),
                _ => None,
            }
        })
        .collect()
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() }
    }

    #[test]
    fn headers_of_registries() {
        for (header, wanted) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    "repository:a/b:pull,push",
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm=x , BEARER  Realm = "r\"q" , service=s"#,
                vec![Challenge::Basic, bearer("r\"q", "s", "")],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="unfinished"#, vec![bearer("unfinished", "", "")]),
            (",,= =", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(header), wanted, "{header}");
        }
    }
}
