//! Bearer tokens: an edge's name by a secret instead of a certificate.

use std::{fs, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use super::{Rotating, SecurityError};

/// Less can be guessed.
const SHORTEST: usize = 16;
const SCHEME: &str = "Bearer ";

/// The tokens that a cloud knows.
pub struct Tokens {
    /// Of each edge: its name, and the digest of its token. Digests are compared, so that the time it takes tells
    /// nothing of a token.
    known: Vec<(String, [u8; 32])>,
}

impl Tokens {
    /// From a file with a line `NAME TOKEN` for each edge; empty lines and those that begin with `#` are left out.
    pub fn read(file: PathBuf) -> Result<Rotating<Self>, SecurityError> {
        Rotating::new(vec![file.clone()], move || {
            let text = fs::read_to_string(&file).map_err(|e| SecurityError::file(&file, e))?;
            Self::parse(&text).map_err(|problem| SecurityError::file(&file, problem))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut known: Vec<(String, [u8; 32])> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = format!("line {}", number + 1);
            let mut words = line.split_whitespace();
            let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
                return Err(format!("{at}: expected NAME TOKEN"));
            };
            if token.len() < SHORTEST {
                return Err(format!("{at}: a token has at least {SHORTEST} characters"));
            }
            known.push((name.into(), digest(token)));
        }
        match known.is_empty() {
            true => Err("there is no line NAME TOKEN in it".into()),
            false => Ok(Self { known }),
        }
    }

    /// Whose the token in an `authorization` header is.
    pub fn name_of(&self, header: &str) -> Option<&str> {
        let own = digest(header.strip_prefix(SCHEME)?);
        self.known.iter().find(|(_, known)| *known == own).map(|(name, _)| name.as_str())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// One token that opens something.
pub struct Secret([u8; 32]);

impl Secret {
    /// From a file that has nothing but the token.
    pub fn read(file: PathBuf) -> Result<Rotating<Self>, SecurityError> {
        Rotating::new(vec![file.clone()], move || {
            let text = fs::read_to_string(&file).map_err(|e| SecurityError::file(&file, e))?;
            Self::parse(&text).map_err(|problem| SecurityError::file(&file, problem))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let token = text.trim();
        if token.len() < SHORTEST || token.contains(char::is_whitespace) {
            return Err(format!("expected one token of at least {SHORTEST} characters"));
        }
        Ok(Self(digest(token)))
    }

    /// Whether the token in an `authorization` header is this one; in a time that tells nothing of it.
    pub fn opens(&self, header: &str) -> bool {
        let token = header.strip_prefix(SCHEME);
        token.is_some_and(|token| digest(token).ct_eq(&self.0).into())
    }
}

/// Adds the edge's token to each call, if it has one.
#[derive(Clone, Default)]
pub struct Credentials {
    token: Option<Arc<Rotating<MetadataValue<Ascii>>>>,
}

impl Credentials {
    /// From a file that has nothing but the token.
    pub fn read(file: Option<PathBuf>) -> Result<Self, SecurityError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let token = Rotating::new(vec![file.clone()], move || {
            let text = fs::read_to_string(&file).map_err(|e| SecurityError::file(&file, e))?;
            let mut value = MetadataValue::try_from(format!("{SCHEME}{}", text.trim()))
                .map_err(|_| SecurityError::file(&file, "is not one line of plain characters"))?;
            value.set_sensitive(true);
            Ok(value)
        })?;
        Ok(Self { token: Some(Arc::new(token)) })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.get().as_ref().clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_edge() {
        let text = "# two edges\none 0123456789abcdef\n\ntwo fedcba9876543210\n";
        let tokens = Tokens::parse(text).unwrap();
        assert_eq!(tokens.name_of("Bearer 0123456789abcdef"), Some("one"));
        assert_eq!(tokens.name_of("Bearer fedcba9876543210"), Some("two"));
        for wrong in ["Bearer 0123456789abcde", "0123456789abcdef", "Basic 0123456789abcdef", ""] {
            assert_eq!(tokens.name_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_opens_to_itself_alone() {
        let secret = Secret::parse("0123456789abcdef\n").unwrap();
        assert!(secret.opens("Bearer 0123456789abcdef"));
        for wrong in ["Bearer 0123456789abcdeg", "Bearer ", "0123456789abcdef", ""] {
            assert!(!secret.opens(wrong), "{wrong}");
        }
        for broken in ["short", "", "0123456789 abcdefgh"] {
            assert!(Secret::parse(broken).err().unwrap().contains("at least 16"), "{broken}");
        }
    }

    #[test]
    fn a_broken_list_is_refused_with_its_line() {
        let refusal = |text| Tokens::parse(text).err().unwrap();
        assert!(refusal("one 0123456789abcdef\ntwo\n").starts_with("line 2: expected"));
        assert!(refusal("one short\n").starts_with("line 1: a token has at least 16"));
        assert!(refusal("one 0123456789abcdef more\n").starts_with("line 1"));
        assert!(refusal("# nobody\n").contains("no line"));
    }
}
