//! URLs of stores.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path;
use percent_encoding::percent_decode_str;
use url::Url;

const DEFAULT_REGION: &str = "us-east-1";

/// A bucket and a folder in it: `s3://bucket/folder?endpoint=https://host:port&region=name`, or
/// `obs://…`, which contains the bucket in the host name. The URL contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) region: String,
    /// Scheme, host and port; by default AWS' endpoint of the region.
    pub(super) endpoint: Option<String>,
    /// Whether the host name contains the bucket; otherwise the path contains it.
    pub(super) virtual_host: bool,
    scheme: &'static str,
}

/// The location of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A local folder: `file:///folder`.
    Folder(PathBuf),
    /// A bucket.
    Bucket(BucketUrl),
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        if !text.starts_with("file:") {
            return BucketUrl::parse(text).map(Self::Bucket);
        }
        let folder = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
        match folder {
            Some(folder) => Ok(Self::Folder(folder)),
            None => invalid(text, "it is no absolute path of a folder"),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "file://{}", folder.display()),
            Self::Bucket(url) => url.fmt(f),
        }
    }
}

/// An invalid URL of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{url}` names no store: {reason}; write file:///folder or \
     s3://bucket/folder?endpoint=https://host:port&region=name"
)]
pub struct InvalidStoreUrl {
    url: String,
    reason: &'static str,
}

impl BucketUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`InvalidStoreUrl`] with the reason.
    pub fn parse(text: &str) -> Result<Self, InvalidStoreUrl> {
        let Ok(url) = Url::parse(text) else { return invalid(text, "it is no URL") };
        if !url.username().is_empty() || url.password().is_some() {
            // The URL is not repeated, because it contains a secret.
            return invalid(
                "the URL",
                "it contains a user name or a password, which belong in a \
                                       file",
            );
        }
        let (scheme, hosted) = match url.scheme() {
            "s3" => ("s3", false),
            "obs" => ("obs", true),
            _ => return invalid(text, "its scheme is not file, s3 or obs"),
        };
        let Some(bucket) = url.host_str().filter(|host| !host.is_empty()) else {
            return invalid(text, "it has no bucket");
        };
        let (mut endpoint, mut region, mut virtual_host) = (None, None, hosted);
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => endpoint = Some(value.trim_end_matches('/').to_owned()),
                "region" => region = Some(value.into_owned()),
                "virtual_host" if value == "true" || value == "false" => {
                    virtual_host = value == "true";
                }
                _ => return invalid(text, "it has an unknown parameter"),
            }
        }
        if let Some(endpoint) = &endpoint {
            let known = ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme));
            if !known || Url::parse(endpoint).is_err() {
                return invalid(text, "its endpoint is no http or https URL");
            }
        } else if hosted {
            return invalid(text, "an obs URL needs an endpoint");
        }
        let Ok(prefix) = percent_decode_str(url.path().trim_matches('/')).decode_utf8() else {
            return invalid(text, "its folder is not UTF-8");
        };
        if Path::parse(&prefix).is_err() {
            return invalid(
                text,
                "its folder contains an empty part, a dot part or a control character",
            );
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.into_owned(),
            region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            endpoint,
            virtual_host,
            scheme,
        })
    }

    /// Whether requests may be unencrypted; only an explicit http URL permits this.
    pub(super) fn allows_http(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// The endpoint for the client, with the bucket in it for that style. It is always set, so that
    /// no environment variable can replace it.
    pub(super) fn client_endpoint(&self) -> String {
        let aws = || format!("https://s3.{}.amazonaws.com", self.region);
        let endpoint = self.endpoint.clone().unwrap_or_else(aws);
        match endpoint.split_once("://") {
            Some((scheme, host)) if self.virtual_host => {
                format!("{scheme}://{}.{host}", self.bucket)
            }
            _ => endpoint,
        }
    }

    /// The bucket's own URL.
    pub(super) fn bucket_url(&self) -> String {
        let endpoint = self.client_endpoint();
        if self.virtual_host { endpoint } else { format!("{endpoint}/{}", self.bucket) }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

fn invalid<T>(url: &str, reason: &'static str) -> Result<T, InvalidStoreUrl> {
    Err(InvalidStoreUrl { url: url.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_contains_bucket_folder_and_endpoint() {
        let url = "s3://vault/redis/eu?endpoint=http://127.0.0.1:9000/&region=eu-west-1";
        let found = BucketUrl::parse(url).unwrap();
        assert_eq!((found.bucket.as_str(), found.prefix.as_str()), ("vault", "redis/eu"));
        assert_eq!(found.client_endpoint(), "http://127.0.0.1:9000");
        assert_eq!(found.bucket_url(), "http://127.0.0.1:9000/vault");
        assert!(found.allows_http());
        assert_eq!(found.to_string(), "s3://vault/redis/eu");
        let obs = "obs://vault?endpoint=https://obs.eu.example.com&region=eu";
        let found = BucketUrl::parse(obs).unwrap();
        assert_eq!(found.client_endpoint(), "https://vault.obs.eu.example.com");
        assert_eq!(found.bucket_url(), "https://vault.obs.eu.example.com");
        assert!(!found.allows_http());
        let aws = BucketUrl::parse("s3://vault?region=eu-west-1").unwrap();
        assert_eq!(aws.bucket_url(), "https://s3.eu-west-1.amazonaws.com/vault");
    }

    #[test]
    fn encoded_and_plain_folder_names_are_equal() {
        for text in ["s3://vault/my backups/ü", "s3://vault/my%20backups/%C3%BC"] {
            assert_eq!(BucketUrl::parse(text).unwrap().prefix, "my backups/ü", "{text}");
        }
    }

    #[test]
    fn an_invalid_url_is_refused_without_repeating_its_secrets() {
        for (url, reason) in [
            ("vault", "no URL"),
            ("ftp://vault", "scheme"),
            ("s3:///folder", "no bucket"),
            ("s3://vault?endpoint=host", "endpoint"),
            ("s3://vault/a//b", "folder"),
            ("s3://vault/%ff", "folder"),
            ("s3://vault?secret=x", "unknown parameter"),
            ("obs://vault", "needs an endpoint"),
            ("s3://AK:geheim@vault", "password"),
        ] {
            let error = BucketUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("geheim"), "{error}");
        }
    }
}
