//! Which layers of an image are those of one of Microsoft's bases, and which local base takes their place.
//!
//! Nothing in such a layer's description says it for sure, so several things are looked at, the surest first; written down
//! for users in `docs/bases.md`.

use std::collections::BTreeMap;

use crate::contract::{BaseLayers, GuestError, Lineage, LineageLayer};

use super::family::Family;

/// Layers that are known: see `digests.txt`.
const DIGESTS: &str = include_str!("digests.txt");
/// How Microsoft's bases tell of their layers in the history: the lowest, and what is above it.
const FIRST: &str = "Apply image ";
const UPDATE: &str = "Install update ";
/// Where image builders note what an image is built on (OCI image specification, annotations.md).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Of what needs a window system's kernel side, which nanoserver has not (OCI image specification, image-index.md).
const WIN32K: &str = "win32k";
/// Bytes of all compressed base layers: nanoserver's have been 0.10–0.41 GB since 2016, servercore's 1.5 GB and more.
const LARGEST_NANOSERVER: u64 = 600_000_000;
const SMALLEST_SERVERCORE: u64 = 1_000_000_000;

/// Reads a list of layers: a digest (of the blob, or the diff ID) and a family a line; `#` begins a remark.
pub fn read_digests(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let is_digest = |text: &str| {
            let hex = text.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        match words[..] {
            [] => {}
            [digest, family] if is_digest(digest) && of_microsoft(family).is_some() => {
                all.insert(digest.to_owned(), family.to_owned());
            }
            _ => {
                return Err(format!(
                    "line {}: {line:?} is not \"sha256:… FAMILY\" with the family nanoserver, servercore or server",
                    number + 1
                ));
            }
        }
    }
    Ok(all)
}

/// The local base for a family by Microsoft's name. `server` (before: `windows`) has more than servercore, and Wine has no
/// more than what servercore's base holds.
fn of_microsoft(name: &str) -> Option<Family> {
    match name {
        "nanoserver" => Some(Family::NanoServer),
        "servercore" | "server" | "windows" => Some(Family::ServerCore),
        _ => None,
    }
}

/// The family of a repository of Microsoft's bases: `mcr.microsoft.com/windows/nanoserver`, with or without tag or digest.
pub(in crate::windows) fn of_repository(name: &str) -> Option<Family> {
    let path = name.strip_prefix("mcr.microsoft.com/")?;
    let path = path.split(['@', ':']).next().unwrap_or(path);
    let family = path.strip_prefix("windows/").or((path == "windows").then_some(path))?;
    of_microsoft(family)
}

/// The family in the URL of a foreign layer: `https://mcr.microsoft.com/v2/windows/nanoserver/blobs/sha256:…`.
fn of_url(url: &str) -> Option<Family> {
    let (_, rest) = url.split_once("/v2/")?;
    let (repository, _) = rest.split_once("/blobs/")?;
    of_repository(&format!("mcr.microsoft.com/{repository}"))
}

/// The family that a name tells by the way: `golang:1.24-nanoserver-ltsc2022`, `python:windowsservercore`.
fn of_name(name: &str) -> Option<Family> {
    let name = name.to_ascii_lowercase();
    match (name.contains("nanoserver"), name.contains("servercore")) {
        (true, false) => Some(Family::NanoServer),
        (false, true) => Some(Family::ServerCore),
        _ => None,
    }
}

/// Whether Microsoft is where a layer can be had.
fn is_of_microsoft(url: &str) -> bool {
    let host = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', ':']).next().unwrap_or(""));
    of_url(url).is_some() || host == "microsoft.com" || host.ends_with(".microsoft.com")
}

/// See [`crate::Guest::base_layers`].
pub(in crate::windows) fn base_layers(of: &Lineage<'_>) -> Result<Option<BaseLayers>, GuestError> {
    let built_in = read_digests(DIGESTS).map_err(GuestError::Invalid)?;
    let listed = |layer: &LineageLayer<'_>| {
        let find = |digest: &str| of.digests.get(digest).or_else(|| built_in.get(digest));
        find(layer.digest).or_else(|| find(layer.diff)).and_then(|family| of_microsoft(family))
    };
    let is_base = |(i, layer): &(usize, &LineageLayer<'_>)| {
        let told = if *i == 0 { FIRST } else { UPDATE };
        let foreign =
            layer.foreign && (layer.urls.is_empty() || layer.urls.iter().any(|u| is_of_microsoft(u)));
        foreign || listed(layer).is_some() || layer.created_by.starts_with(told)
    };
    let count = of.layers.iter().enumerate().take_while(is_base).count();
    let layers = &of.layers[..count];
    if layers.is_empty() {
        return Ok(None);
    }
    let family = match one_of(of.name, layers.iter().filter_map(listed))? {
        Some(family) => family,
        None => guess(of, layers).ok_or_else(|| ambiguous(of.name, layers))?,
    };
    Ok(Some(BaseLayers {
        layers: count,
        base: family.reference().to_owned(),
        family: family.as_str().to_owned(),
    }))
}

/// What a list says of an image's base layers, if it says one thing.
fn one_of(name: &str, mut families: impl Iterator<Item = Family>) -> Result<Option<Family>, GuestError> {
    let Some(first) = families.next() else { return Ok(None) };
    if families.any(|other| other != first) {
        return Err(GuestError::Invalid(format!(
            "image {name}: the list of base layers has some of them as nanoserver's and some as servercore's"
        )));
    }
    Ok(Some(first))
}

/// The first that says something.
fn guess(of: &Lineage<'_>, layers: &[LineageLayer<'_>]) -> Option<Family> {
    let by_url = || layers.iter().flat_map(|l| l.urls).find_map(|url| of_url(url));
    let by_note = || {
        let notes = [of.annotations.get(BASE_NAME), of.labels.get(BASE_NAME)];
        notes.into_iter().flatten().find_map(|name| of_repository(name))
    };
    let by_store = || {
        let same = |(diffs, _): &&(Vec<String>, String)| {
            diffs.len() == layers.len() && diffs.iter().zip(layers).all(|(a, b)| a == b.diff)
        };
        let (_, base) = of.known.iter().find(same)?;
        Family::all().into_iter().find(|family| family.reference() == base)
    };
    let by_features = || of.os_features.iter().any(|f| f == WIN32K).then_some(Family::ServerCore);
    by_url()
        .or_else(|| of_repository(of.name))
        .or_else(by_note)
        .or_else(by_store)
        .or_else(by_features)
        .or_else(|| of_name(of.name))
        .or_else(|| by_size(layers))
}

/// By what there is of it: of an archive that does not tell sizes, an update says that it is not nanoserver.
fn by_size(layers: &[LineageLayer<'_>]) -> Option<Family> {
    match layers.iter().try_fold(0, |sum: u64, layer| sum.checked_add(layer.size))? {
        0 => {
            let update = layers.iter().any(|layer| layer.created_by.starts_with(UPDATE));
            update.then_some(Family::ServerCore)
        }
        size if size <= LARGEST_NANOSERVER => Some(Family::NanoServer),
        size if size >= SMALLEST_SERVERCORE => Some(Family::ServerCore),
        _ => None,
    }
}

fn ambiguous(name: &str, layers: &[LineageLayer<'_>]) -> GuestError {
    let lowest = layers.first().map_or("", |layer| layer.digest);
    GuestError::Invalid(format!(
        "image {name} is built on one of Microsoft's Windows images, and nothing tells on which: put the line \
         \"{lowest} nanoserver\" or \"{lowest} servercore\" into /etc/silo/base-digests (or a file of `silo daemon \
         --base-digests`) and start the daemon anew"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const NO_URLS: &[String] = &[];

    fn layer(created_by: &'static str, size: u64) -> LineageLayer<'static> {
        LineageLayer { digest: DIGEST, diff: "sha256:d", foreign: false, urls: NO_URLS, size, created_by }
    }

    /// How many layers and which family; the error's words.
    fn found<'a>(
        name: &'a str,
        layers: &'a [LineageLayer<'a>],
        change: impl FnOnce(&mut Lineage<'a>),
    ) -> String {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let mut lineage = Lineage {
            name,
            labels: &NONE,
            annotations: &NONE,
            os_features: &[],
            layers,
            known: &[],
            digests: &NONE,
        };
        change(&mut lineage);
        match base_layers(&lineage) {
            Ok(Some(base)) => format!("{} {}", base.layers, base.family),
            Ok(None) => "none".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn base_layers_are_counted_from_below() {
        let (first, update) = (layer("Apply image 10.0.20348.1", 1), layer("Install update 10.0.20348.2", 1));
        let (own, foreign) = (layer("cmd /S /C dir", 1), LineageLayer { foreign: true, ..layer("", 1) });
        for (layers, wanted) in [
            (vec![first.clone()], "1 nanoserver"),
            (vec![first.clone(), update.clone(), own.clone()], "2 nanoserver"),
            (vec![first.clone(), own.clone(), update.clone()], "1 nanoserver"),
            (vec![foreign.clone(), foreign.clone(), own.clone()], "2 nanoserver"),
            (vec![update, own.clone()], "none"),
            (vec![own, first, foreign], "none"),
            (vec![], "none"),
        ] {
            assert_eq!(found("x:1", &layers, |_| {}), wanted, "{layers:?}");
        }
    }

    #[test]
    fn the_surest_word_of_the_family_counts() {
        let unsure = [layer("Apply image 10.0.20348.1", 800_000_000)];
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let said = found("x:1", &unsure, |_| {});
        assert!(
            said.contains("image x:1") && said.contains(DIGEST) && said.contains("base-digests"),
            "{said}"
        );
        for (name, wanted) in [
            ("mcr.microsoft.com/windows/nanoserver:ltsc2022", "1 nanoserver"),
            ("mcr.microsoft.com/windows/server@sha256:1", "1 servercore"),
            ("mcr.microsoft.com/windows:1809", "1 servercore"),
            ("golang:1.24-nanoserver-ltsc2022", "1 nanoserver"),
            ("host:5000/python:3-windowsservercore", "1 servercore"),
        ] {
            assert_eq!(found(name, &unsure, |_| {}), wanted, "{name}");
        }
        let note = map(BASE_NAME, "mcr.microsoft.com/windows/servercore:ltsc2022");
        assert_eq!(found("x:nanoserver", &unsure, |l| l.labels = &note), "1 servercore");
        let win32k = ["win32k".to_owned()];
        assert_eq!(found("x:nanoserver", &unsure, |l| l.os_features = &win32k), "1 servercore");
        let known = [(vec!["sha256:d".to_owned()], Family::NanoServer.reference().to_owned())];
        assert_eq!(found("x:1", &unsure, |l| l.known = &known), "1 nanoserver");
        let url = ["https://mcr.microsoft.com/v2/windows/servercore/blobs/sha256:1".to_owned()];
        let by_url = [LineageLayer { urls: &url, ..unsure[0].clone() }];
        assert_eq!(found("mcr.microsoft.com/windows/nanoserver:1", &by_url, |_| {}), "1 servercore");
        let digests = map(DIGEST, "nanoserver");
        assert_eq!(found("x:1", &by_url, |l| l.digests = &digests), "1 nanoserver");
        let digests = BTreeMap::from([
            (DIGEST.to_owned(), "nanoserver".to_owned()),
            ("sha256:other".to_owned(), "servercore".to_owned()),
        ]);
        let both = [unsure[0].clone(), LineageLayer { diff: "sha256:other", digest: "", ..layer("", 1) }];
        assert!(found("x:1", &both, |l| l.digests = &digests).contains("some as servercore's"));
        for (size, created_by, wanted) in [
            (191_412_015, "", "2 nanoserver"),
            (2_281_691_961, "", "2 servercore"),
            (0, "Install update 10.0.1", "2 servercore"),
        ] {
            let layers =
                [layer("Apply image 10.0.1", size), LineageLayer { foreign: true, ..layer(created_by, 0) }];
            assert_eq!(found("x:1", &layers, |_| {}), wanted);
        }
    }

    #[test]
    fn lists_are_read_or_refused_by_their_line() {
        assert_eq!(read_digests(DIGESTS).unwrap().len(), 11);
        let text = format!("# a remark\n\n{DIGEST} server # another\n");
        assert_eq!(
            read_digests(&text).unwrap().into_iter().next().unwrap(),
            (DIGEST.into(), "server".into())
        );
        for bad in ["sha256:12 nanoserver", &format!("{DIGEST} linux"), DIGEST] {
            let error = read_digests(&format!("#\n{bad}")).unwrap_err();
            assert!(error.starts_with("line 2:"), "{error}");
        }
    }
}
