//! Events: told to everybody who listens, and the last ones kept for `--since`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use crate::filters::Filters;
use crate::record::{ContainerRecord, Event};

/// Events kept (dockerd's number).
const KEPT: usize = 256;
/// Events a slow listener may be behind before it loses some.
const BEHIND: usize = 4096;

/// The hub of events.
#[derive(Debug)]
pub(crate) struct Events {
    past: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { past: Mutex::new(VecDeque::new()), sender: broadcast::channel(BEHIND).0 }
    }

    pub(crate) fn tell(&self, kind: &str, action: &str, actor: &str, attributes: BTreeMap<String, String>) {
        let event = Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: actor.to_owned(),
            attributes,
            time: Timestamp::now(),
        };
        let mut past = self.past.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listening is fine. Sent under the lock, so that a subscriber sees each event exactly once.
        let _ = self.sender.send(event);
    }

    /// An event of a container, with dockerd's attributes: name, image, labels, and `more`.
    pub(crate) fn container(&self, record: &ContainerRecord, action: &str, more: &[(&str, String)]) {
        let mut attributes = record.spec.config.labels.clone();
        attributes.insert("name".into(), record.name.clone());
        attributes.insert("image".into(), record.spec.image.clone());
        attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.tell("container", action, &record.id.0, attributes);
    }

    /// A container has got its volumes, as dockerd tells it.
    pub(crate) fn joined(&self, record: &ContainerRecord) {
        for mount in record.mounts.iter().filter(|m| m.kind == "volume") {
            let attributes = [
                ("container", record.id.0.clone()),
                ("destination", mount.destination.clone()),
                ("driver", mount.driver.clone()),
                ("propagation", mount.propagation.clone()),
                ("read/write", mount.rw.to_string()),
            ];
            self.tell("volume", "mount", &mount.name, owned(attributes));
        }
    }

    /// A container has given back what [`Events::joined`] told.
    pub(crate) fn left(&self, record: &ContainerRecord) {
        for mount in record.mounts.iter().filter(|m| m.kind == "volume") {
            let attributes = [("container", record.id.0.clone()), ("driver", mount.driver.clone())];
            self.tell("volume", "unmount", &mount.name, owned(attributes));
        }
    }

    /// A volume was made or has gone.
    pub(crate) fn volume(&self, name: &str, action: &str) {
        self.tell("volume", action, name, owned([("driver", "local".to_owned())]));
    }

    pub(crate) fn subscribe(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        filters: Filters,
    ) -> mpsc::Receiver<Event> {
        let (to, receiver) = mpsc::channel(64);
        let (past, mut live) = {
            let past = self.past.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let wanted: Vec<Event> = match (since, until) {
                (None, None) => Vec::new(),
                (None, Some(_)) => Vec::new(),
                (Some(since), _) => past
                    .iter()
                    .filter(|e| e.time >= since && until.is_none_or(|u| e.time <= u))
                    .cloned()
                    .collect(),
            };
            (wanted, self.sender.subscribe())
        };
        tokio::spawn(async move {
            for event in past {
                if matches(&filters, &event) && to.send(event).await.is_err() {
                    return;
                }
            }
            let end = async {
                match until {
                    Some(until) => {
                        let left = until.duration_since(Timestamp::now());
                        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(end);
            loop {
                tokio::select! {
                    () = &mut end => return,
                    () = to.closed() => return,
                    event = live.recv() => match event {
                        Ok(event) if matches(&filters, &event) => {
                            if to.send(event).await.is_err() {
                                return;
                            }
                        }
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                }
            }
        });
        receiver
    }
}

fn owned<const N: usize>(attributes: [(&str, String); N]) -> BTreeMap<String, String> {
    attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let name = event.attributes.get("name").map_or("", String::as_str);
    let object = |filter: &str, kind: &str| {
        let wanted = filters.get(filter);
        wanted.is_empty()
            || (event.kind == kind
                && wanted
                    .iter()
                    .any(|w| *w == event.actor || w == name || event.actor.starts_with(w.as_str())))
    };
    let action = event.action.split(':').next().unwrap_or_default();
    let image = event.attributes.get("image").map_or("", String::as_str);
    (filters.exact("event", &event.action) || filters.exact("event", action))
        && filters.exact("type", &event.kind)
        && object("container", "container")
        && object("volume", "volume")
        && object("network", "network")
        && (filters.get("image").is_empty()
            || filters
                .get("image")
                .iter()
                .any(|w| w == image || (event.kind == "image" && (*w == event.actor || w == name))))
        && filters.labels("label", &event.attributes)
        && filters.exact("scope", "local")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_and_live_events_pass_the_filters() {
        let events = Events::new();
        let start = Timestamp::now();
        events.tell("container", "start", "abc", BTreeMap::from([("name".into(), "web".into())]));
        events.tell("image", "tag", "x", BTreeMap::new());
        let filters = Filters(BTreeMap::from([("container".into(), vec!["web".into()])]));
        let mut got = events.subscribe(Some(start), None, filters);
        events.tell(
            "container",
            "health_status: healthy",
            "abc",
            BTreeMap::from([("name".into(), "web".into())]),
        );
        assert_eq!(got.recv().await.unwrap().action, "start");
        assert_eq!(got.recv().await.unwrap().action, "health_status: healthy");
        let until = Some(Timestamp::now());
        let mut got = events.subscribe(Some(start), until, Filters::default());
        let mut n = 0;
        while got.recv().await.is_some() {
            n += 1;
        }
        assert_eq!(n, 3);
    }
}
