//! The labelled demo images, and how an application asks about one.

use crate::http::{HttpClient, HttpResponse};
use crate::world;
use anyhow::{Context, bail};
use serde_json::{Value, json};

pub mod versions;

/// Pixels of one image.
pub const IMAGE_BYTES: usize = 28 * 28;

/// Labelled images, 28 x 28 grey, one byte per pixel.
pub struct Images {
    pixels: Vec<u8>,
    classes: Vec<u8>,
    labels: Vec<String>,
}

impl Images {
    /// The test images, which nothing was trained or chosen on.
    ///
    /// # Errors
    /// The files are not there.
    pub fn test() -> anyhow::Result<Self> {
        let folder = world::fashion();
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let labels = serde_json::from_slice(&read("labels.json")?)?;
        let pixels = read("data/test-images.u8")?;
        let classes = read("data/test-labels.u8")?;
        if pixels.len() != classes.len() * IMAGE_BYTES {
            bail!("images and labels do not match");
        }
        Ok(Self { pixels, classes, labels })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The pixels of one.
    pub fn pixels(&self, index: usize) -> &[u8] {
        &self.pixels[index * IMAGE_BYTES..(index + 1) * IMAGE_BYTES]
    }

    /// The true label of one.
    pub fn label(&self, index: usize) -> &str {
        &self.labels[usize::from(self.classes[index])]
    }
}

/// The body of a request about one image of bytes, answered in binary.
pub fn request_body(pixels: &[u8], parameters: &Value) -> (usize, Vec<u8>) {
    body("UINT8", &[1, 28, 28], pixels, parameters)
}

fn body(datatype: &str, shape: &[i64], data: &[u8], parameters: &Value) -> (usize, Vec<u8>) {
    let head = json!({
        "parameters": parameters,
        "inputs": [{
            "name": "image", "datatype": datatype, "shape": shape,
            "parameters": { "binary_data_size": data.len() },
        }],
        "outputs": [{ "name": "logits", "parameters": { "binary_data": true } }],
    });
    let mut body = head.to_string().into_bytes();
    let len = body.len();
    body.extend_from_slice(data);
    (len, body)
}

/// Sends one request about one image.
///
/// # Errors
/// The connection breaks.
pub fn ask(
    client: &mut HttpClient,
    pixels: &[u8],
    parameters: &Value,
) -> anyhow::Result<HttpResponse> {
    send(client, request_body(pixels, parameters))
}

/// Asks the cloud and nobody else about one image; where the answer came from.
///
/// # Errors
/// The connection breaks, or there is no answer.
pub fn ask_cloud_alone(client: &mut HttpClient, pixels: &[u8]) -> anyhow::Result<Value> {
    let answer = ask(client, pixels, &json!({ "placement": "cloud", "timeout": 20_000_000 }))?;
    Ok(answer.split()?.0["parameters"]["placement"].clone())
}

/// Sends one request about one image as the model takes it.
///
/// # Errors
/// The connection breaks.
pub fn ask_floats(
    client: &mut HttpClient,
    floats: &[f32],
    parameters: &Value,
) -> anyhow::Result<HttpResponse> {
    let data: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    send(client, body("FP32", &[1, 1, 28, 28], &data, parameters))
}

fn send(client: &mut HttpClient, (len, body): (usize, Vec<u8>)) -> anyhow::Result<HttpResponse> {
    let len = len.to_string();
    let headers = [("Inference-Header-Content-Length", len.as_str())];
    client.post("/v2/models/fashion/infer", &headers, &body)
}
