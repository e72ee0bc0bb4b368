//! Who we are to a registry: credentials as clients send them, tokens as registries give them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::Method;

use crate::registry::challenge::{self, Challenge};
use crate::registry::error::{RegistryError, Result};
use crate::registry::settings::Endpoint;
use crate::registry::transport::{Request, Response, Sent, Transport};

/// Bytes that a token may have.
const MAX_TOKEN: u64 = 1 << 20;
/// How long a token lives that does not say (distribution specification, "Token Response Fields").
const DEFAULT_LIFE: u64 = 60;
/// As what we ask for tokens; what docker says, since registries look at it.
const CLIENT_ID: &str = "docker";

/// Docker's `AuthConfig`, as it comes with `X-Registry-Auth` and `/auth`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: String,
    /// `name:password` in base64, instead of both.
    pub auth: String,
    /// Registry that they are for.
    pub serveraddress: String,
    /// A refresh token, instead of a password.
    pub identitytoken: String,
    /// A token for the registry itself.
    pub registrytoken: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// From the header: base64, of the URL's alphabet or the other, of JSON. Nonsense is an error, nothing is nobody.
    pub fn from_header(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(&text)
            .map_err(|_| "invalid X-Registry-Auth header: it is no base64".to_owned())?;
        let value: Self = serde_json::from_slice(&bytes)
            .map_err(|_| "invalid X-Registry-Auth header: it is no JSON of credentials".to_owned())?;
        Ok(value.normal())
    }

    /// With name and password where they came as one.
    pub fn normal(mut self) -> Self {
        let both = base64::engine::general_purpose::STANDARD.decode(&self.auth).ok();
        let both = both.and_then(|b| String::from_utf8(b).ok());
        if let (true, Some((name, password))) =
            (self.username.is_empty(), both.as_deref().and_then(|b| b.split_once(':')))
        {
            (self.username, self.password) = (name.to_owned(), password.trim_end_matches('\0').to_owned());
        }
        self
    }

    pub(crate) fn basic(&self) -> Option<String> {
        let text = format!("{}:{}", self.username, self.password);
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        (!self.username.is_empty()).then(|| format!("Basic {encoded}"))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

struct Token {
    header: String,
    until: Instant,
}

#[derive(Default)]
struct Known {
    /// How each registry wants to be spoken to.
    challenges: HashMap<String, Vec<Challenge>>,
    /// Tokens by registry and scopes.
    tokens: HashMap<(String, String), Token>,
}

/// What is known of registries' wishes, and the means to fulfil them.
pub(crate) struct Authorizer {
    credentials: Credentials,
    known: Mutex<Known>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Authorizer {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a registry asks for; whether that is anything.
    pub(crate) fn learn(&self, endpoint: &Endpoint, response: &Response) -> bool {
        let headers = response.headers.get_all("www-authenticate");
        let all: Vec<Challenge> =
            headers.iter().filter_map(|h| h.to_str().ok()).flat_map(challenge::parse).collect();
        let any = !all.is_empty();
        if any {
            let mut known = self.known();
            known.challenges.insert(endpoint.url.clone(), all);
            // It did not like what it was given.
            known.tokens.retain(|(url, _), _| *url != endpoint.url);
        }
        any
    }

    /// The `Authorization` that an endpoint wants for these scopes; `None`: it has not asked, or we have nothing to say.
    pub(crate) fn header(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &[String],
    ) -> Result<Option<String>> {
        let challenges = self.known().challenges.get(&endpoint.url).cloned().unwrap_or_default();
        if challenges.is_empty() {
            return Ok(None);
        }
        // A mirror is somebody else, whom our credentials are not for.
        let nobody = Credentials::default();
        let credentials = if endpoint.mirror { &nobody } else { &self.credentials };
        if !credentials.registrytoken.is_empty() {
            return Ok(Some(format!("Bearer {}", credentials.registrytoken)));
        }
        let bearer = challenges.iter().find_map(|c| match c {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let Some((realm, service, scope)) = bearer else { return Ok(credentials.basic()) };
        let scopes: Vec<String> = match scopes {
            [] if !scope.is_empty() => vec![scope.clone()],
            scopes => scopes.to_vec(),
        };
        let key = (endpoint.url.clone(), scopes.join(" "));
        if let Some(token) = self.known().tokens.get(&key).filter(|t| t.until > Instant::now()) {
            return Ok(Some(token.header.clone()));
        }
        let answer = fetch(transport, endpoint, credentials, (realm, service), &scopes, false)?;
        let token = token_of(&answer, realm)?;
        // Asked again a little before its end.
        let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).max(DEFAULT_LIFE);
        let until = Instant::now() + Duration::from_secs(life - life / 10);
        let header = format!("Bearer {token}");
        self.known().tokens.insert(key, Token { header: header.clone(), until });
        Ok(Some(header))
    }

    /// Proves the credentials to a registry that has asked; an identity token if it gives one.
    pub(crate) fn log_in(&self, transport: &Transport, endpoint: &Endpoint) -> Result<Option<String>> {
        let challenges = self.known().challenges.get(&endpoint.url).cloned().unwrap_or_default();
        for challenge in &challenges {
            if let Challenge::Bearer { realm, service, .. } = challenge {
                let answer = fetch(transport, endpoint, &self.credentials, (realm, service), &[], true)?;
                token_of(&answer, realm)?;
                return Ok(answer.refresh_token.filter(|t| !t.is_empty()));
            }
        }
        Ok(None)
    }
}

fn token_of(answer: &TokenAnswer, realm: &str) -> Result<String> {
    let token = answer.token.clone().or(answer.access_token.clone()).filter(|t| !t.is_empty());
    token.ok_or_else(|| {
        RegistryError::Broken(format!("authorization server {realm} did not include a token in the response"))
    })
}

/// Asks a token server (distribution specification, "Token Authentication" and "OAuth2 Token Authentication").
fn fetch(
    transport: &Transport,
    endpoint: &Endpoint,
    credentials: &Credentials,
    (realm, service): (&str, &str),
    scopes: &[String],
    offline: bool,
) -> Result<TokenAnswer> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let form: String;
    let mut request;
    if !credentials.identitytoken.is_empty() {
        let mut fields = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", credentials.identitytoken.clone()),
            ("client_id", CLIENT_ID.to_owned()),
        ];
        fields.push(("service", service.to_owned()));
        if !scopes.is_empty() {
            fields.push(("scope", scopes.join(" ")));
        }
        form = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
        request = Request::new(Method::POST, realm.to_owned())
            .header("content-type", "application/x-www-form-urlencoded");
        request.sent = Sent::Bytes(form.as_bytes());
    } else {
        let mut query = Vec::new();
        if !service.is_empty() {
            query.push(format!("service={}", encode(service)));
        }
        query.extend(scopes.iter().map(|s| format!("scope={}", encode(s))));
        if !credentials.username.is_empty() {
            query.push(format!("account={}", encode(&credentials.username)));
        }
        if offline {
            query.push(format!("offline_token=true&client_id={CLIENT_ID}"));
        }
        let sign = if realm.contains('?') { '&' } else { '?' };
        request = Request::new(Method::GET, format!("{realm}{sign}{}", query.join("&")));
        if let Some(basic) = credentials.basic() {
            request = request.header("authorization", basic);
        }
    }
    // The token server is often another host: it must prove itself as its registry must.
    let response = transport.send(&request, endpoint)?;
    if !response.status.is_success() {
        return Err(response.refusal());
    }
    let bytes = response.bytes(MAX_TOKEN)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| RegistryError::Broken(format!("unable to decode token response of {realm}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_as_clients_send_them() {
        // {"username":"u","password":"p?>","serveraddress":"s"} in both alphabets, with and without padding.
        let text = r#"{"username":"u","password":"p?>","serveraddress":"s"}"#;
        let url = base64::engine::general_purpose::URL_SAFE.encode(text);
        let standard = base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
        for header in [url, standard] {
            let read = Credentials::from_header(&header).unwrap();
            assert_eq!((read.username.as_str(), read.password.as_str()), ("u", "p?>"));
            assert_eq!(read.basic().unwrap(), "Basic dTpwPz4=");
        }
        let auth = base64::engine::general_purpose::STANDARD.encode(r#"{"auth":"dTpwOnE="}"#);
        let read = Credentials::from_header(&auth).unwrap();
        assert_eq!((read.username.as_str(), read.password.as_str()), ("u", "p:q"));
        assert!(Credentials::from_header("").unwrap().basic().is_none());
        assert!(Credentials::from_header("e30=").unwrap().basic().is_none());
        assert!(Credentials::from_header("%%").is_err() && Credentials::from_header("YWJj").is_err());
        assert!(
            !format!("{:?}", Credentials { password: "secret".into(), ..Default::default() })
                .contains("secret")
        );
    }
}
