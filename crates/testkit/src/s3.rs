//! A real server of the S3 protocol, in this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

mod quick;

use futures_util::{StreamExt, TryStreamExt};

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput,
    ETag, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input,
    ListObjectsV2Output, MultipartUpload, PutObjectInput, PutObjectOutput, StreamingBlob,
    UploadPartInput, UploadPartOutput,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The only bucket, which exists from the beginning.
pub const BUCKET: &str = "vault";

/// An access key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Key {
    pub key: String,
    pub secret: String,
}

impl Default for S3Key {
    fn default() -> Self {
        Self { key: "AKTESTTESTTEST".to_owned(), secret: "a secret of the store".to_owned() }
    }
}

/// `s3s-fs` over a folder, with verified signatures; stopped when dropped.
#[derive(Debug)]
pub struct S3Server {
    pub port: u16,
    folder: TempDir,
    key: Arc<Mutex<S3Key>>,
    state: Arc<State>,
    is_careless: bool,
    serving: JoinSet<()>,
}

/// A request that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Call {
    Put,
    Get,
    Delete,
    List,
    Head,
    CreateUpload,
    UploadPart,
    CompleteUpload,
    AbortUpload,
}

/// The way in which a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// The server does nothing and reports an internal error.
    Refuse,
    /// The server does nothing: the access key lacks the right.
    Deny,
    /// The server executes the request and reports an error: a retry executes it twice.
    LoseReply,
    /// The body of the response is truncated.
    CutBody,
    /// The server rejects the request as invalid.
    Reject,
    /// The server stores bytes that differ from the sent ones.
    Alter,
    /// The server executes the request after this time, or when the faults are removed.
    Stall(Duration),
}

/// The faults, and the unfinished uploads.
#[derive(Debug, Default)]
struct State {
    faults: Mutex<Vec<(S3Call, S3Fault, u32)>>,
    /// Unfinished uploads by id, with key and start time.
    uploads: Mutex<BTreeMap<String, (String, SystemTime)>>,
    /// The number of times that each part of an upload was sent.
    parts: Mutex<BTreeMap<(String, i32), u32>>,
    healed: Notify,
}

impl State {
    fn take(&self, call: S3Call) -> Option<S3Fault> {
        let mut faults = self.faults.lock().expect("no test panicked while holding the faults");
        let (_, fault, left) =
            faults.iter_mut().find(|(which, _, left)| *which == call && *left > 0)?;
        *left -= 1;
        Some(*fault)
    }

    fn look_for(&self, upload: &str) -> S3Result<()> {
        if self.uploads.lock().expect("the uploads").contains_key(upload) {
            return Ok(());
        }
        Err(s3_error!(NoSuchUpload, "no such upload"))
    }

    /// Executes a request with its injected fault.
    async fn faulty<T>(
        &self,
        call: S3Call,
        doing: impl Future<Output = Answer<T>> + Send,
    ) -> Answer<T> {
        self.under(self.take(call), doing).await
    }

    async fn under<T>(
        &self,
        fault: Option<S3Fault>,
        doing: impl Future<Output = Answer<T>> + Send,
    ) -> Answer<T> {
        match fault {
            Some(S3Fault::Refuse) => Err(refused()),
            Some(S3Fault::Deny) => Err(denied()),
            Some(S3Fault::LoseReply) => {
                doing.await?;
                Err(refused())
            }
            Some(S3Fault::Stall(time)) => {
                self.stall(time).await;
                doing.await
            }
            Some(S3Fault::Reject) => Err(s3_error!(InvalidPart, "refused on purpose")),
            Some(S3Fault::CutBody | S3Fault::Alter) | None => doing.await,
        }
    }

    async fn stall(&self, time: Duration) {
        let healed = self.healed.notified();
        // The faults were removed before the call began to wait.
        if self.faults.lock().expect("the faults").is_empty() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = healed => {}
        }
    }
}

/// `s3s-fs` with injected faults, a list of uploads, which it lacks, and shortened keys: its file
/// names would be too long for a file system.
struct Wrapped {
    files: s3s_fs::FileSystem,
    /// The folder of the buckets.
    root: PathBuf,
    state: Arc<State>,
}

const SHORTER: [(&str, &str); 3] = [("/attempt-", "/~"), ("/shard-", "/s"), (".rdb.zst", ".z")];

fn shorten(key: &str) -> String {
    SHORTER.iter().fold(key.to_owned(), |key, (long, short)| key.replace(long, short))
}

fn lengthen(key: &str) -> String {
    let key = key.replace("/~", "/attempt-");
    let file = key.rsplit_once('/').and_then(|(folder, file)| {
        let file = file.strip_prefix('s')?;
        let shard = file.strip_suffix(".z").map(|shard| format!("{shard}.rdb.zst"));
        let shard = shard.or_else(|| file.ends_with(".rdb").then(|| file.to_owned()))?;
        Some(format!("{folder}/shard-{shard}"))
    });
    file.unwrap_or(key)
}

fn refused() -> S3Error {
    s3_error!(ServiceUnavailable, "refused on purpose")
}

fn denied() -> S3Error {
    s3_error!(AccessDenied, "the access key lacks this right")
}

type Answer<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for Wrapped {
    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.files.head_bucket(req).await
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        self.files.create_bucket(req).await
    }

    async fn head_object(&self, mut req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        req.input.key = shorten(&req.input.key);
        self.state.faulty(S3Call::Head, self.files.head_object(req)).await
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        self.look_for(&req.input.bucket)?;
        req.input.key = shorten(&req.input.key);
        let fault = self.state.take(S3Call::Put);
        if fault == Some(S3Fault::Alter)
            && let Some(body) = req.input.body.take()
        {
            let body = altered(quick::whole(body).await.map_err(S3Error::internal_error)?);
            let pieces = body.into_iter().map(Ok::<_, std::io::Error>);
            req.input.body = Some(StreamingBlob::wrap(futures_util::stream::iter(pieces)));
        }
        self.state.under(fault, self.files.put_object(req)).await
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        req.input.key = shorten(&req.input.key);
        let fault = self.state.take(S3Call::Get);
        let mut answer = self.state.under(fault, self.read(req)).await?;
        if fault == Some(S3Fault::CutBody)
            && let Some(body) = answer.output.body.take()
        {
            answer.output.body = Some(cut(body));
        }
        Ok(answer)
    }

    async fn delete_object(
        &self,
        mut req: S3Request<DeleteObjectInput>,
    ) -> Answer<DeleteObjectOutput> {
        req.input.key = shorten(&req.input.key);
        self.state.faulty(S3Call::Delete, self.files.delete_object(req)).await
    }

    async fn list_objects_v2(
        &self,
        mut req: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        let input = &mut req.input;
        for text in [&mut input.prefix, &mut input.start_after, &mut input.continuation_token] {
            *text = text.as_deref().map(shorten);
        }
        let mut answer = self.state.faulty(S3Call::List, self.files.list_objects_v2(req)).await?;
        for object in answer.output.contents.iter_mut().flatten() {
            object.key = object.key.as_deref().map(lengthen);
        }
        let token = &mut answer.output.next_continuation_token;
        *token = token.as_deref().map(lengthen);
        Ok(answer)
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.look_for(&req.input.bucket)?;
        let key = req.input.key.clone();
        req.input.key = shorten(&key);
        let begin = async {
            let answer = self.files.create_multipart_upload(req).await?;
            let id = answer.output.upload_id.clone().unwrap_or_default();
            let begun = (key, now());
            self.state.uploads.lock().expect("the uploads").insert(id, begun);
            Ok(answer)
        };
        self.state.faulty(S3Call::CreateUpload, begin).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let part = (req.input.upload_id.clone(), req.input.part_number);
        *self.state.parts.lock().expect("the parts").entry(part).or_default() += 1;
        let fault = self.state.take(S3Call::UploadPart);
        self.state.under(fault, self.keep_part(req.input, fault == Some(S3Fault::Alter))).await
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        req.input.key = shorten(&req.input.key);
        let id = req.input.upload_id.clone();
        let complete = async {
            self.state.look_for(&id)?;
            let answer = self.complete(req).await?;
            self.state.uploads.lock().expect("the uploads").remove(&id);
            Ok(answer)
        };
        self.state.faulty(S3Call::CompleteUpload, complete).await
    }

    async fn abort_multipart_upload(
        &self,
        mut req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        req.input.key = shorten(&req.input.key);
        let abort = async {
            self.state.uploads.lock().expect("the uploads").remove(&req.input.upload_id);
            self.files.abort_multipart_upload(req).await
        };
        self.state.faulty(S3Call::AbortUpload, abort).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let uploads = self.state.uploads.lock().expect("the uploads");
        let found = uploads.iter().filter(|(_, (key, _))| key.starts_with(&prefix));
        let found = found.map(|(id, (key, begun))| MultipartUpload {
            key: Some(key.clone()),
            upload_id: Some(id.clone()),
            initiated: Some((*begun).into()),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(req.input.bucket),
            is_truncated: Some(false),
            uploads: Some(found.collect()),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

impl Wrapped {
    /// `s3s-fs` creates a missing bucket.
    fn look_for(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "no such bucket"))
    }

    async fn read(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let (range, path) =
            (req.input.range, self.root.join(&req.input.bucket).join(&req.input.key));
        self.look_for(&req.input.bucket)?;
        let head =
            self.files.head_object(req.map_input(|GetObjectInput { bucket, key, .. }| {
                HeadObjectInput { bucket, key, ..HeadObjectInput::default() }
            }));
        let head = head.await?.output;
        let size = u64::try_from(head.content_length.unwrap_or_default()).unwrap_or_default();
        let wanted = range.map_or(Ok(0..size), |range| range.check(size))?;
        let content_range =
            range.map(|_| format!("bytes {}-{}/{size}", wanted.start, wanted.end - 1));
        let content_length = i64::try_from(wanted.end - wanted.start).ok();
        let body = quick::body(&path, wanted).await.map_err(S3Error::internal_error)?;
        Ok(S3Response::new(GetObjectOutput {
            body: Some(body),
            content_length,
            content_range,
            e_tag: head.e_tag,
            last_modified: head.last_modified,
            ..GetObjectOutput::default()
        }))
    }

    async fn keep_part(
        &self,
        input: UploadPartInput,
        is_altered: bool,
    ) -> Answer<UploadPartOutput> {
        let UploadPartInput { upload_id, part_number, body, .. } = input;
        self.state.look_for(&upload_id)?;
        let number = usize::try_from(part_number).ok().filter(|n| (1..=10_000).contains(n));
        let number = number.ok_or_else(|| s3_error!(InvalidArgument, "no such part"))?;
        let body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let mut part = quick::whole(body).await.map_err(S3Error::internal_error)?;
        if is_altered {
            part = altered(part);
        }
        let uploads = self.state.uploads.lock().expect("the uploads");
        // The upload may have been aborted in the meantime; no part may follow.
        if !uploads.contains_key(&upload_id) {
            return Err(s3_error!(NoSuchUpload, "no such upload"));
        }
        let kept = quick::keep(&self.root, &upload_id, number, &part);
        kept.map_err(S3Error::internal_error)?;
        let e_tag = Some(ETag::Strong(format!("{upload_id}-{number}")));
        Ok(S3Response::new(UploadPartOutput { e_tag, ..UploadPartOutput::default() }))
    }

    async fn complete(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let CompleteMultipartUploadInput { bucket, key, upload_id, multipart_upload, .. } =
            req.input.clone();
        let parts = multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let numbers = parts.iter().filter_map(|part| part.part_number);
        let in_order = numbers.eq(1..=i32::try_from(parts.len()).unwrap_or(i32::MAX));
        if parts.is_empty()
            || !in_order
            || !quick::are_complete(&self.root, &upload_id, parts.len())
        {
            return Err(s3_error!(InvalidPart, "parts are missing, out of order or too small"));
        }
        let e_tag = format!("{upload_id}-{}", parts.len());
        let published = quick::publish(&self.root, &upload_id, (&bucket, &key), &e_tag);
        published.map_err(S3Error::internal_error)?;
        // Removes the rest of the upload: the other parts, and its id.
        let abort =
            req.map_input(|CompleteMultipartUploadInput { bucket, key, upload_id, .. }| {
                AbortMultipartUploadInput {
                    bucket,
                    key,
                    upload_id,
                    ..AbortMultipartUploadInput::default()
                }
            });
        self.files.abort_multipart_upload(abort).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(ETag::Strong(e_tag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }
}

#[expect(clippy::disallowed_methods, reason = "a server has its own clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the body with one flipped bit.
fn altered(body: Vec<Bytes>) -> Vec<Bytes> {
    let mut bytes = body.concat();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    vec![bytes.into()]
}

/// Removes the headers of signatures and checksums.
fn unproven(mut request: Request<Incoming>) -> Request<Incoming> {
    let names: Vec<_> = request.headers().keys().cloned().collect();
    for name in names {
        let text = name.as_str();
        if text == "authorization" || text == "x-amz-date" || text.contains("sha256") {
            request.headers_mut().remove(name);
        }
    }
    request
}

/// Truncates a body after its first piece.
fn cut(body: StreamingBlob) -> StreamingBlob {
    let first = body.take(1).map_err(std::io::Error::other);
    let end = futures_util::stream::iter([Err(std::io::ErrorKind::ConnectionReset.into())]);
    StreamingBlob::wrap(first.chain(end))
}

/// The access key that is currently valid.
struct CurrentKey(Arc<Mutex<S3Key>>);

#[async_trait::async_trait]
impl S3Auth for CurrentKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let current = self.0.lock().expect("no test panicked while holding the key").clone();
        if access_key == current.key {
            return Ok(SecretKey::from(current.secret));
        }
        Err(unknown_key())
    }
}

fn unknown_key() -> S3Error {
    s3_error!(InvalidAccessKeyId, "the access key is unknown")
}

impl S3Server {
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// Starts a server that ignores signatures and checksums.
    pub async fn start_careless() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(is_careless: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket");
        let mut server = Self {
            port: 0,
            folder,
            key: Arc::new(Mutex::new(S3Key::default())),
            state: Arc::new(State::default()),
            is_careless,
            serving: JoinSet::new(),
        };
        server.start_again().await;
        server
    }

    /// Stops the server; connections are refused, and its objects remain.
    pub async fn stop(&mut self) {
        self.serving.shutdown().await;
    }

    /// Starts the server after [`S3Server::stop`], on its port and with its objects.
    pub async fn start_again(&mut self) {
        let files = s3s_fs::FileSystem::new(self.folder.path()).expect("a file system");
        let (root, state) = (self.folder.path().to_owned(), Arc::clone(&self.state));
        let mut builder = S3ServiceBuilder::new(Wrapped { files, root, state });
        let is_careless = self.is_careless;
        if !is_careless {
            builder.set_auth(CurrentKey(Arc::clone(&self.key)));
        }
        let service = builder.build();
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("a port");
        self.port = listener.local_addr().expect("an address").port();
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let http = auto::Builder::new(TokioExecutor::new());
                let s3 = service.clone();
                let service = service_fn(move |request| {
                    let request = if is_careless { unproven(request) } else { request };
                    hyper::service::Service::call(&s3, request)
                });
                let connection = http.serve_connection(TokioIo::new(socket), service);
                let connection = connection.into_owned();
                connections.spawn(async move { drop(connection.await) });
                while connections.try_join_next().is_some() {}
            }
        });
    }

    /// The endpoint's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The URL of a store in the bucket.
    pub fn store_url(&self, bucket: &str) -> String {
        format!("s3://{bucket}/backups?endpoint={}&region=eu-test-1", self.endpoint())
    }

    /// Replaces the valid access key.
    pub fn rotate(&self, key: S3Key) {
        *self.key.lock().expect("no test panicked while holding the key") = key;
    }

    /// Writes the valid access key in the form of AWS' tools.
    pub fn write_credentials(&self, path: &Path) {
        let S3Key { key, secret } = self.key.lock().expect("the key").clone();
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        std::fs::write(path, text).expect("a file of credentials");
    }

    /// Makes the next calls fail, this number of times.
    pub fn inject(&self, call: S3Call, fault: S3Fault, times: u32) {
        self.state.faults.lock().expect("the faults").push((call, fault, times));
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.state.faults.lock().expect("the faults").clear();
        self.state.healed.notify_waiters();
    }

    /// The number of upload parts that were sent more than once.
    pub fn parts_sent_again(&self) -> usize {
        let parts = self.state.parts.lock().expect("the parts");
        parts.values().filter(|times| **times > 1).count()
    }

    /// Makes all objects and unfinished uploads old.
    pub fn age(&self) {
        for (_, begun) in self.state.uploads.lock().expect("the uploads").values_mut() {
            *begun = SystemTime::UNIX_EPOCH;
        }
        for path in self.object_files() {
            let file = std::fs::File::options().write(true).open(path).expect("an object");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("another time");
        }
    }

    /// Aborts all unfinished uploads, like another program with access.
    pub fn end_uploads(&self) {
        self.state.uploads.lock().expect("the uploads").clear();
    }

    /// The number of remaining faults.
    pub fn faults_left(&self) -> u64 {
        self.state
            .faults
            .lock()
            .expect("the faults")
            .iter()
            .map(|(.., left)| u64::from(*left))
            .sum()
    }

    /// The bucket's objects and unfinished uploads, by their keys.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = self.uploads();
        let root = self.bucket_folder();
        keys.extend(self.object_files().iter().filter_map(|path| {
            let key = path.strip_prefix(&root).ok()?;
            Some(lengthen(&key.display().to_string()))
        }));
        keys.sort();
        keys
    }

    /// The keys of unfinished uploads.
    pub fn uploads(&self) -> Vec<String> {
        let uploads = self.state.uploads.lock().expect("the uploads");
        uploads.values().map(|(key, _)| key.clone()).collect()
    }

    fn object_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.bucket_folder()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// The folder of the bucket's objects.
    pub fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The folder of all files of the server: the bucket, metadata of objects, parts of unfinished
    /// uploads.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The files of unfinished uploads.
    pub fn part_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let is_part = |path: &PathBuf| {
            let name = path.to_string_lossy();
            name.contains(".part-") || name.ends_with(".object")
        };
        entries.map(|entry| entry.path()).filter(is_part).collect()
    }

    /// The file of one object.
    pub fn file(&self, key: &str) -> PathBuf {
        self.bucket_folder().join(shorten(key))
    }
}
