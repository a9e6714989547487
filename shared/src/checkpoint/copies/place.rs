//! Where copies are kept: a bucket that speaks S3, or a folder such as a mounted disk.
//!
//! The four things that are asked of a place are named by keys with `/`. Callers wait: a bucket is
//! spoken to on a thread of its own, so that it does not matter whether they are asynchronous.

use std::{
    fs,
    future::Future,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures_util::TryStreamExt;
use object_store::{
    ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as Key,
};
use tokio::{
    io::AsyncWriteExt,
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::checkpoint::atomic::write_atomic;

/// Larger files go up in parts of this size.
const PART: usize = 16 << 20;
/// A bucket that cannot be reached must not hold up training for long.
const CONNECT: &str = "5s";
const RETRIES: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(20);

/// Why something could not be done; one line.
pub type Problem = String;

pub enum Place {
    Bucket(Bucket),
    Folder(PathBuf),
}

impl Place {
    /// `s3://BUCKET/PREFIX`, with credentials and endpoint from these variables (`AWS_ENDPOINT` and the
    /// like), or `file:///FOLDER`.
    pub fn open(
        url: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Problem> {
        Ok(match parse(url)? {
            Named::Folder(folder) => Self::Folder(folder.into()),
            Named::Bucket { bucket, prefix } => {
                Self::Bucket(Bucket::open(bucket, prefix, variables)?)
            }
        })
    }

    /// Copies a file to `key`, in place of what may be there.
    pub fn put(&self, key: &str, file: &Path) -> Result<(), Problem> {
        match self {
            Self::Bucket(bucket) => bucket.put(key, file),
            Self::Folder(folder) => {
                let bytes = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
                let to = folder.join(key);
                let made = to.parent().map_or(Ok(()), fs::create_dir_all);
                made.map_err(|e| format!("{}: {e}", to.display()))?;
                write_atomic(&to, &bytes).map_err(|e| e.to_string())
            }
        }
    }

    /// Copies `key` to a file; false if there is no such key.
    pub fn get(&self, key: &str, file: &Path) -> Result<bool, Problem> {
        match self {
            Self::Bucket(bucket) => bucket.get(key, file),
            Self::Folder(folder) => match fs::copy(folder.join(key), file) {
                Ok(_) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(format!("{}: {e}", folder.join(key).display())),
            },
        }
    }

    /// Every key that begins with the folder `prefix`.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, Problem> {
        match self {
            Self::Bucket(bucket) => bucket.list(prefix),
            Self::Folder(folder) => {
                let mut keys = Vec::new();
                let walked = walk(&folder.join(prefix), prefix, &mut keys);
                walked.map_err(|e| format!("{}: {e}", folder.join(prefix).display()))?;
                Ok(keys)
            }
        }
    }

    pub fn delete(&self, key: &str) -> Result<(), Problem> {
        match self {
            Self::Bucket(bucket) => bucket.delete(key),
            Self::Folder(folder) => {
                let path = folder.join(key);
                fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                // Fails as long as something else is in it.
                let _ = path.parent().map(fs::remove_dir);
                Ok(())
            }
        }
    }
}

/// What a URL names.
enum Named<'a> {
    Folder(&'a str),
    Bucket { bucket: &'a str, prefix: &'a str },
}

fn parse(url: &str) -> Result<Named<'_>, Problem> {
    if let Some(folder) = url.strip_prefix("file://").filter(|folder| folder.starts_with('/')) {
        return Ok(Named::Folder(folder));
    }
    match url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        Some((bucket, prefix)) if !bucket.is_empty() => Ok(Named::Bucket { bucket, prefix }),
        _ => Err(format!("{url:?}: allowed: s3://BUCKET/PREFIX and file:///FOLDER")),
    }
}

/// Refuses a URL that [`Place::open`] would not know.
pub fn check_url(url: &str) -> Result<(), Problem> {
    parse(url).map(|_| ())
}

fn walk(folder: &Path, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let key = format!("{prefix}/{name}");
        match entry.file_type()?.is_dir() {
            true => walk(&entry.path(), &key, keys)?,
            false => keys.push(key),
        }
    }
    Ok(())
}

pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    runtime: Handle,
    /// Dropped with the bucket, which ends the runtime's thread.
    _alive: oneshot::Sender<()>,
}

impl Bucket {
    fn open(
        bucket: &str,
        prefix: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Problem> {
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_TIME,
            ..RetryConfig::default()
        };
        let connect = AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout);
        let builder = AmazonS3Builder::new().with_config(connect, CONNECT);
        // What the variables say counts more than what is said here.
        let known = variables.filter(|(name, _)| name.starts_with("AWS_"));
        let builder = known.fold(builder, |builder, (name, value)| {
            match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            }
        });
        let store = builder.with_bucket_name(bucket).with_retry(retry).build();
        let store = Arc::new(store.map_err(|e| one_line(&e))?);
        let (alive, gone) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("copies".into())
            .spawn(move || drop(runtime.block_on(gone)))
            .map_err(|e| e.to_string())?;
        let prefix = prefix.trim_matches('/').to_string();
        Ok(Self { store, prefix, runtime: handle, _alive: alive })
    }

    fn key(&self, key: &str) -> Key {
        Key::from_iter(self.prefix.split('/').chain(key.split('/')).filter(|part| !part.is_empty()))
    }

    /// Runs a job on the bucket's thread and waits for it.
    fn wait<T, F>(&self, job: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (done, outcome) = mpsc::channel();
        self.runtime.spawn(async move {
            let _ = done.send(job.await);
        });
        let outcome = outcome.recv().map_err(|_| "the thread of the bucket ended".to_string())?;
        outcome.map_err(|e| one_line(&e))
    }

    fn put(&self, key: &str, file: &Path) -> Result<(), Problem> {
        let (store, key, path) = (self.store.clone(), self.key(key), file.to_path_buf());
        self.wait(async move {
            let mut file = fs::File::open(&path).map_err(local)?;
            let first = read_part(&mut file)?;
            if first.len() < PART {
                store.put(&key, PutPayload::from(first)).await?;
                return Ok(());
            }
            let mut upload = store.put_multipart(&key).await?;
            let mut part = first;
            while !part.is_empty() {
                upload.put_part(PutPayload::from(part)).await?;
                part = read_part(&mut file)?;
            }
            upload.complete().await?;
            Ok(())
        })
    }

    fn get(&self, key: &str, file: &Path) -> Result<bool, Problem> {
        let (store, key, path) = (self.store.clone(), self.key(key), file.to_path_buf());
        self.wait(async move {
            let mut body = match store.get(&key).await {
                Ok(found) => found.into_stream(),
                Err(Error::NotFound { .. }) => return Ok(false),
                Err(e) => return Err(e),
            };
            let mut file = tokio::fs::File::create(&path).await.map_err(local)?;
            while let Some(bytes) = body.try_next().await? {
                file.write_all(&bytes).await.map_err(local)?;
            }
            file.sync_all().await.map_err(local)?;
            Ok(true)
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, Problem> {
        let (store, prefix, own) = (self.store.clone(), self.key(prefix), self.key(""));
        self.wait(async move {
            let found: Vec<_> = store.list(Some(&prefix)).try_collect().await?;
            let key = |found: object_store::ObjectMeta| {
                let parts = found.location.prefix_match(&own)?;
                Some(parts.map(|p| p.as_ref().to_string()).collect::<Vec<_>>().join("/"))
            };
            Ok(found.into_iter().filter_map(key).collect())
        })
    }

    fn delete(&self, key: &str) -> Result<(), Problem> {
        let (store, key) = (self.store.clone(), self.key(key));
        self.wait(async move { store.delete(&key).await })
    }
}

/// The next part of a file, empty at its end.
fn read_part(file: &mut fs::File) -> Result<Vec<u8>, Error> {
    let mut part = Vec::new();
    file.take(PART as u64).read_to_end(&mut part).map_err(local)?;
    Ok(part)
}

fn local(error: io::Error) -> Error {
    Error::Generic { store: "disk", source: Box::new(error) }
}

/// An error and what caused it, in one line.
fn one_line(error: &Error) -> Problem {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
