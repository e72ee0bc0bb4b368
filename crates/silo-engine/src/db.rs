//! The database: `silo.db`, SQLite in WAL mode. One row an object, its record as JSON; written before the change is told.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{EngineError, Result};

/// Version of the tables (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// Tables that hold records by key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    Containers,
    Volumes,
    Networks,
    BuildCache,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Table::Containers => "containers",
            Table::Volumes => "volumes",
            Table::Networks => "networks",
            Table::BuildCache => "build_cache",
        }
    }
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Db {
    connection: Mutex<Connection>,
}

fn failed(doing: &str) -> impl Fn(rusqlite::Error) -> EngineError + '_ {
    move |e| EngineError::internal(format!("database: {doing}: {e}"))
}

fn put(connection: &Connection, table: Table, key: &str, record: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(record).map_err(|e| EngineError::internal(format!("{key}: {e}")))?;
    let sql = format!("INSERT OR REPLACE INTO {} (key, record) VALUES (?1, ?2)", table.name());
    let mut statement = connection.prepare_cached(&sql).map_err(failed("writing"))?;
    statement.execute(params![key, text]).map_err(failed("writing"))?;
    Ok(())
}

fn delete(connection: &Connection, table: Table, key: &str) -> Result<()> {
    let sql = format!("DELETE FROM {} WHERE key = ?1", table.name());
    connection.execute(&sql, [key]).map_err(failed("deleting"))?;
    Ok(())
}

fn together(connection: &mut Connection, work: impl FnOnce(&Writes<'_>) -> Result<()>) -> Result<()> {
    // Dropped without a commit, it is rolled back.
    let transaction = connection.transaction().map_err(failed("writing"))?;
    work(&Writes(&transaction))?;
    transaction.commit().map_err(failed("writing"))
}

/// Writes of one transaction.
pub(crate) struct Writes<'a>(&'a Connection);

impl Writes<'_> {
    pub(crate) fn put(&self, table: Table, key: &str, record: &impl Serialize) -> Result<()> {
        put(self.0, table, key, record)
    }

    pub(crate) fn delete(&self, table: Table, key: &str) -> Result<()> {
        delete(self.0, table, key)
    }
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let at = format!("opening {}", path.display());
        let failed = failed(&at);
        let connection = Connection::open(path).map_err(&failed)?;
        // NORMAL: a power cut may lose the last commits, never the database's wholeness; kill -9 loses nothing.
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-512;
                 CREATE TABLE IF NOT EXISTS containers (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS volumes (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS networks (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS build_cache (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
            )
            .map_err(&failed)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(&failed)?;
        if version > VERSION {
            return Err(EngineError::internal(format!(
                "{} was written by a newer silo (format {version}, this one knows {VERSION})",
                path.display()
            )));
        }
        connection.execute_batch(&format!("PRAGMA user_version={VERSION}")).map_err(&failed)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn put(&self, table: Table, key: &str, record: &impl Serialize) -> Result<()> {
        put(&self.lock(), table, key, record)
    }

    /// As [`Db::put`], and on disk when it returns: for what a power cut must not take (with data that belongs to it).
    pub(crate) fn put_durably(&self, table: Table, key: &str, record: &impl Serialize) -> Result<()> {
        self.durably(|write| write.put(table, key, record))
    }

    /// Several writes that are all done, or none of them; on disk when it returns.
    pub(crate) fn durably(&self, work: impl FnOnce(&Writes<'_>) -> Result<()>) -> Result<()> {
        // One lock for all of it: nobody else's write turns it off in between.
        let mut connection = self.lock();
        connection.execute_batch("PRAGMA synchronous=FULL").map_err(failed("writing"))?;
        let done = together(&mut connection, work);
        connection.execute_batch("PRAGMA synchronous=NORMAL").map_err(failed("writing"))?;
        done
    }

    /// Several writes that are all done, or none of them.
    pub(crate) fn together(&self, work: impl FnOnce(&Writes<'_>) -> Result<()>) -> Result<()> {
        together(&mut self.lock(), work)
    }

    /// The keys of a table, of records that cannot be read too.
    pub(crate) fn keys(&self, table: Table) -> Result<std::collections::HashSet<String>> {
        let connection = self.lock();
        let mut statement =
            connection.prepare(&format!("SELECT key FROM {}", table.name())).map_err(failed("reading"))?;
        let rows = statement.query_map([], |r| r.get(0)).map_err(failed("reading"))?;
        rows.collect::<std::result::Result<_, _>>().map_err(failed("reading"))
    }

    pub(crate) fn delete(&self, table: Table, key: &str) -> Result<()> {
        delete(&self.lock(), table, key)
    }

    /// All records; one that cannot be read is logged and left alone.
    pub(crate) fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(&format!("SELECT key, record FROM {}", table.name()))
            .map_err(failed("reading"))?;
        let rows = statement
            .query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))
            .map_err(failed("reading"))?;
        let mut list = Vec::new();
        for row in rows {
            let (key, text) = row.map_err(failed("reading"))?;
            match serde_json::from_str(&text) {
                Ok(record) => list.push(record),
                Err(e) => tracing::error!("{} {key} in the database cannot be read: {e}", table.name()),
            }
        }
        Ok(list)
    }

    /// A setting, made by `make` when it is not there yet.
    pub(crate) fn setting(&self, key: &str, make: impl FnOnce() -> String) -> Result<String> {
        let connection = self.lock();
        let found: Option<String> = connection
            .query_row("SELECT value FROM settings WHERE key = ?1", [key], |r| r.get(0))
            .optional()
            .map_err(failed("reading"))?;
        if let Some(value) = found {
            return Ok(value);
        }
        let value = make();
        connection
            .execute("INSERT INTO settings VALUES (?1, ?2)", [key, &value])
            .map_err(failed("writing"))?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_reopening_and_settings_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silo.db");
        let db = Db::open(&path).unwrap();
        db.put(Table::Volumes, "a", &1).unwrap();
        db.put(Table::Volumes, "a", &2).unwrap();
        assert_eq!(db.setting("id", || "x".into()).unwrap(), "x");
        drop(db);
        let db = Db::open(&path).unwrap();
        assert_eq!(db.all::<i32>(Table::Volumes).unwrap(), [2]);
        assert_eq!(db.setting("id", || "y".into()).unwrap(), "x");
        db.delete(Table::Volumes, "a").unwrap();
        assert!(db.all::<i32>(Table::Volumes).unwrap().is_empty());
    }

    #[test]
    fn writes_together_are_all_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("silo.db")).unwrap();
        let failed = db.durably(|write| {
            write.put(Table::Volumes, "a", &1)?;
            Err(EngineError::invalid("no"))
        });
        assert_eq!(failed.unwrap_err().message, "no");
        assert!(db.keys(Table::Volumes).unwrap().is_empty());
        db.durably(|write| write.put(Table::Volumes, "a", &1)).unwrap();
        db.together(|write| write.delete(Table::Volumes, "a")).unwrap();
        assert!(db.keys(Table::Volumes).unwrap().is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_still_holds_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("silo.db")).unwrap();
        db.put_durably(Table::Volumes, "a", &"of another version").unwrap();
        assert!(db.all::<i32>(Table::Volumes).unwrap().is_empty());
        assert!(db.keys(Table::Volumes).unwrap().contains("a"));
    }
}
