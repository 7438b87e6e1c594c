//! The cloud's HTTPS, for whoever holds an operator's key: the admin API and the standard's calls.

use super::Operator;
use anyhow::{Context, bail};
use serde_json::Value;

/// A client with a key.
pub struct Api {
    http: ureq::Agent,
    cloud: String,
    bearer: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// How long the JSON before the tensors is, where there are any.
    json_bytes: Option<usize>,
    /// The body.
    pub body: Vec<u8>,
}

impl ApiResponse {
    /// The JSON part of the body; null where there is none.
    pub fn json(&self) -> Value {
        let len = self.json_bytes.unwrap_or(self.body.len()).min(self.body.len());
        serde_json::from_slice(&self.body[..len]).unwrap_or_default()
    }

    /// The tensors' bytes behind it.
    pub fn tensors(&self) -> &[u8] {
        self.body.get(self.json_bytes.unwrap_or(self.body.len())..).unwrap_or_default()
    }
}

impl Api {
    /// With the key of an operator who is signed in.
    ///
    /// # Errors
    /// The operator's configuration cannot be read.
    pub fn with_key_of(operator: &Operator) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = operator.config_dir().join(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let login: Value = serde_json::from_slice(&read("credentials.json")?)?;
        let field = |name: &str| login[name].as_str().unwrap_or_default().to_owned();
        let ca = link::pki::chain_from_pem(&read("ca.pem")?)?;
        let tls = link::roots::http_client_of(&ca);
        let config =
            ureq::Agent::config_builder().tls_config(tls).proxy(None).http_status_as_error(false);
        Ok(Self {
            http: config.build().new_agent(),
            cloud: field("cloud"),
            bearer: format!("Bearer {}.{}", field("key_id"), field("secret")),
        })
    }

    /// Any call.
    ///
    /// # Errors
    /// No connection, or one that breaks.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<ApiResponse> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.cloud))
            .header("authorization", &self.bearer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.http.run(request.body(body)?)?;
        let len = response.headers().get("inference-header-content-length");
        let json_bytes = len.map(|len| anyhow::Ok(len.to_str()?.parse()?)).transpose()?;
        let status = response.status().as_u16();
        Ok(ApiResponse { status, json_bytes, body: response.body_mut().read_to_vec()? })
    }

    /// A call that is to succeed.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn accepted(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<ApiResponse> {
        let response = self.call(method, path, &[], body)?;
        if !(200..300).contains(&response.status) {
            let said = String::from_utf8_lossy(&response.body);
            bail!("{method} {path}: {}: {said}", response.status);
        }
        Ok(response)
    }
}
