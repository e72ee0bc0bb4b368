//! What an image archive holds: documents, spooled; layers, unpacked while they arrive, whosever they turn out to be.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{ImageError, Result, io};
use crate::layers::{Format, Fresh, Keep, LINUX_ROOTS, LayerRecord, WINDOWS, chains};
use crate::lease::Lease;
use crate::store::ImageStore;

/// Members an archive may have.
const MAX_MEMBERS: usize = 100_000;
/// Links that lead to a member.
const MAX_LINKS: usize = 8;
/// First bytes of a member that tell what it is; what is smaller is spooled.
const HEAD: usize = 64 << 10;

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

enum Kind {
    /// As it is.
    Spooled(PathBuf),
    /// A Linux layer, or why it cannot be one.
    Unpacked(Result<Fresh>),
    /// A layer that the store has.
    Kept(LayerRecord),
    /// A layer that could not be had.
    Failed,
}

struct Member {
    size: u64,
    kind: Kind,
}

/// Members of an archive by name.
pub(crate) struct Members<'a> {
    store: &'a ImageStore,
    _scratch: Scratch,
    all: HashMap<String, Member>,
    links: HashMap<String, String>,
    /// Layers that the archive names and the store has already.
    leases: Vec<Lease>,
}

/// `./a/../b` as `b`; `None` when it leads out.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str()?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// Whether a file that begins so is the archive of a Linux layer. A Windows layer can be unpacked over those below it only;
/// its first directory tells.
fn is_linux_layer(head: &[u8]) -> bool {
    let mut plain = Vec::new();
    // It is cut off.
    let _ = silo_layer::Plain::new(head).and_then(|p| p.take(HEAD as u64).read_to_end(&mut plain));
    let mut archive = tar::Archive::new(&plain[..]);
    let Ok(entries) = archive.entries() else { return false };
    let mut any = false;
    for entry in entries {
        let Ok(entry) = entry else { break };
        any = true;
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&name).into_owned();
        let windows = |root: &str| {
            silo_layer::WINDOWS_ROOTS.iter().chain(LINUX_ROOTS).any(|known| known.eq_ignore_ascii_case(root))
        };
        if let Some(root) = name.split('/').find(|part| !matches!(*part, "" | ".")) {
            return !windows(root);
        }
    }
    any
}

impl<'a> Members<'a> {
    /// Reads an archive to its end.
    pub(crate) fn read(store: &'a ImageStore, tar: &mut dyn Read) -> Result<Self> {
        let dir = store.scratch.join(format!("load-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).map_err(io(format!("making {}", dir.display())))?;
        let mut members = Self {
            store,
            _scratch: Scratch(dir.clone()),
            all: HashMap::new(),
            links: HashMap::new(),
            leases: Vec::new(),
        };
        let known: HashMap<Digest, LayerRecord> =
            store.layers.all().into_iter().map(|record| (record.diff.clone(), record)).collect();
        let bad = |e: io::Error| ImageError::Invalid(format!("the image archive cannot be read: {e}"));
        let mut archive = tar::Archive::new(silo_layer::BoundedHeaders::new(tar));
        for (number, entry) in archive.entries().map_err(bad)?.enumerate() {
            let mut entry = entry.map_err(bad)?;
            if number >= MAX_MEMBERS {
                return Err(ImageError::Invalid(format!(
                    "the image archive has more than {MAX_MEMBERS} members"
                )));
            }
            let path = entry.path().map_err(bad)?.into_owned();
            let Some(name) = normal(&path) else {
                return Err(ImageError::Invalid(format!(
                    "the image archive has a member {:?}",
                    path.display()
                )));
            };
            let kind = entry.header().entry_type();
            match kind {
                tar::EntryType::Regular | tar::EntryType::GNUSparse => {
                    let size = entry.size();
                    let kind = match members.kept(&known, &name) {
                        Some(record) => Kind::Kept(record),
                        None => members.take(&mut entry, &name, &dir.join(number.to_string()))?,
                    };
                    members.all.insert(name, Member { size, kind });
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let Some(target) = entry.link_name().map_err(bad)?.map(std::borrow::Cow::into_owned)
                    else {
                        continue;
                    };
                    let base = match kind {
                        tar::EntryType::Symlink => path.parent().unwrap_or(Path::new("")).join(&target),
                        _ => target,
                    };
                    if let Some(target) = normal(&base) {
                        members.links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(members)
    }

    /// The layer that a member is by its name, if the store has it. It stays.
    fn kept(&mut self, known: &HashMap<Digest, LayerRecord>, name: &str) -> Option<LayerRecord> {
        let digest = Digest::parse(&format!("sha256:{}", name.strip_prefix("blobs/sha256/")?))?;
        let record = known.get(&digest)?;
        let lease = self.store.leases.take(vec![record.chain.clone()], Vec::new());
        let found = self.store.layers.get(&record.chain)?;
        self.leases.push(lease);
        Some(found)
    }

    fn take(&self, member: &mut dyn Read, name: &str, to: &Path) -> Result<Kind> {
        let spooling = || io(format!("spooling {name}"));
        let mut head = Vec::with_capacity(HEAD);
        member.take(HEAD as u64).read_to_end(&mut head).map_err(spooling())?;
        if head.len() == HEAD && is_linux_layer(&head) {
            let whole = Cursor::new(head).chain(member);
            return Ok(Kind::Unpacked(self.store.layers.unpack(Format::Linux, whole, true)));
        }
        let mut file = File::create(to).map_err(io(format!("making {}", to.display())))?;
        io::copy(&mut Cursor::new(head).chain(member), &mut file).map_err(spooling())?;
        Ok(Kind::Spooled(to.to_owned()))
    }

    /// The name that a member has, links followed.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        let mut name = normal(Path::new(name))?;
        for _ in 0..MAX_LINKS {
            if self.all.contains_key(&name) {
                return Some(name);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    /// As [`Members::find`]; that there is none is an error.
    pub(crate) fn member(&self, name: &str) -> Result<String> {
        self.find(name).ok_or_else(|| ImageError::Invalid(format!("the image archive has no {name}")))
    }

    /// Where a document is.
    pub(crate) fn document(&self, name: &str) -> Result<&Path> {
        match self.all.get(&self.member(name)?).map(|m| &m.kind) {
            Some(Kind::Spooled(path)) => Ok(path),
            _ => Err(ImageError::Invalid(format!("{name} in the image archive is no document"))),
        }
    }

    /// Bytes of a member, by its own name.
    pub(crate) fn size(&self, name: &str) -> u64 {
        self.all.get(name).map_or(0, |m| m.size)
    }

    /// Makes a member, by its own name, the layer `diff` over `below`. The caller writes alone.
    pub(crate) fn layer(&mut self, os: &str, below: &[Digest], diff: &Digest, name: &str) -> Result<()> {
        let layers = &self.store.layers;
        let below_chains = chains(below);
        let parent = below_chains.last();
        if layers.get(&Digest::chain(parent, diff)).is_some() {
            return Ok(());
        }
        let Some(member) = self.all.get_mut(name) else {
            return Err(ImageError::Invalid(format!("the image archive has no {name}")));
        };
        let add = |tar: &mut dyn Read| layers.add(os, below, Some(diff), tar, &Keep::Record);
        let record = match std::mem::replace(&mut member.kind, Kind::Failed) {
            Kind::Spooled(path) => {
                let mut file = File::open(&path).map_err(io(format!("reading {}", path.display())))?;
                add(&mut file)?;
                // It may be a layer elsewhere too.
                member.kind = Kind::Spooled(path);
                return Ok(());
            }
            Kind::Kept(record) => {
                let mut tar = layers.raw_tar(&record)?;
                add(&mut tar)?
            }
            Kind::Unpacked(fresh) => {
                let fresh = fresh?;
                if os == WINDOWS {
                    add(&mut fresh.tar().map_err(io("reading a layer"))?)?
                } else {
                    layers.keep(fresh, parent, Some(diff), &Keep::Record)?
                }
            }
            Kind::Failed => return Err(ImageError::Invalid(format!("{name} could not be unpacked"))),
        };
        member.kind = Kind::Kept(record);
        Ok(())
    }
}
