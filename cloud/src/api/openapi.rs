//! The admin API in a machine's words: its OpenAPI 3.1 document.
//!
//! It is written by hand beside the handlers, since they take and give what the `protocol` crate's
//! types parse, and those know no OpenAPI. A test holds it against the routes, and a client that
//! nobody here wrote makes thousands of calls from it (`tests/tests/admin_api.rs`).

use serde_json::{Map, Value, json};

mod operations;
mod questions;
mod rollouts;
mod schemas;

use operations::{Operation, all};

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in all() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(&operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrigger's admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What operators do, as HTTPS and JSON. Every call but liveness and a sign-in carries a \
                            key; what a key's role may do is said with each operation. Every failure \
                            has a sentence, a code for scripts, and a hint.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer",
                "bearerFormat": "ID.SECRET", "description": "outrigger key create" } },
            "schemas": schemas::all(),
            "responses": { "Refused": { "description": "Refused, and why.", "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } } },
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let Operation { summary, permission, answers, .. } = operation;
    let mut responses = Map::new();
    for (status, description, content) in answers {
        let mut response = json!({ "description": description });
        if let Some((kind, schema)) = content {
            response["content"] = json!({ *kind: { "schema": schema } });
        }
        responses.insert(status.to_string(), response);
    }
    responses.insert("4XX".into(), json!({ "$ref": "#/components/responses/Refused" }));
    if operation.may_be_unready {
        responses.insert("503".into(), json!({ "$ref": "#/components/responses/Refused" }));
    }
    let mut described = json!({
        "summary": summary,
        "operationId": operation.id,
        "description": match permission {
            Some(permission) => format!("For keys whose role includes: {permission}."),
            None => "For every key.".to_owned(),
        },
        "parameters": operation.parameters,
        "responses": responses,
    });
    if operation.is_open {
        described["security"] = json!([]);
        described["description"] = "For everybody.".into();
    }
    if let Some((kind, schema)) = &operation.body {
        let content = json!({ *kind: { "schema": schema } });
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every route that the router has, and no other.
    #[test]
    fn the_document_has_the_routes() {
        let source = include_str!("../api.rs");
        let mut routes: Vec<String> = Vec::new();
        for line in source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, methods) = line.split_once("\", ").unwrap();
            let own = ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&path);
            let path = if own { path.to_owned() } else { format!("/v1{path}") };
            for method in ["get", "post", "put", "delete", "head"] {
                let begins = methods.starts_with(&format!("{method}("));
                if begins || methods.contains(&format!(").{method}(")) {
                    routes.push(format!("{method} {path}"));
                }
            }
        }
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let described = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        });
        let mut described: Vec<String> = described.collect();
        routes.sort();
        routes.dedup(); // an inference node has some of them too
        described.sort();
        assert!(routes.len() > 20, "{routes:?}");
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|inner| references(inner, found));
                }
                Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
