//! As much of JSON Schema as the document uses, and stricter: a field that no schema names is an error.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Checks a value against a schema of the document; `Err` says where it does not match.
pub fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    matches(document, schema, value)?;
    if let Value::Object(fields) = value {
        let named = properties(document, schema, value);
        // An object without named fields (data of a message) holds what it likes.
        if let Some(unnamed) = fields.keys().find(|field| !named.is_empty() && !named.contains(*field)) {
            return Err(format!("{unnamed} is not documented"));
        }
    }
    Ok(())
}

/// The schema that a reference names.
pub fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolve(document, document.pointer(reference.strip_prefix('#').unwrap()).expect(reference)),
        None => schema,
    }
}

fn parts<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema[name].as_array().map_or(&[], Vec::as_slice)
}

fn matches(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolve(document, schema);
    if schema == &json!(false) {
        return Err(format!("{value} where nothing is allowed"));
    }
    let types = match &schema["type"] {
        Value::Null => Vec::new(),
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => vec![one.as_str().unwrap()],
    };
    if !types.is_empty() && !types.iter().any(|name| is(name, value)) {
        return Err(format!("{value} is none of {types:?}"));
    }
    if schema.get("enum").is_some() && !parts(schema, "enum").contains(value) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    if schema.get("const").is_some_and(|constant| constant != value) {
        return Err(format!("{value} is not {}", schema["const"]));
    }
    if let Some(number) = value.as_f64()
        && (schema["minimum"].as_f64().is_some_and(|minimum| number < minimum) || schema["maximum"].as_f64().is_some_and(|maximum| number > maximum))
    {
        return Err(format!("{value} is out of bounds"));
    }
    if let Some(text) = value.as_str() {
        let chars = text.chars().count() as u64;
        if schema["maxLength"].as_u64().is_some_and(|most| chars > most) || schema["minLength"].as_u64().is_some_and(|least| chars < least) {
            return Err(format!("{value} has a wrong length"));
        }
        if schema["format"] == "uuid" && text.parse::<uuid::Uuid>().is_err() {
            return Err(format!("{value} is not a UUID"));
        }
    }
    if let Some(items) = value.as_array() {
        let count = items.len() as u64;
        if schema["maxItems"].as_u64().is_some_and(|most| count > most) || schema["minItems"].as_u64().is_some_and(|least| count < least) {
            return Err(format!("{count} items"));
        }
        for item in items.iter().filter(|_| schema.get("items").is_some()) {
            check(document, &schema["items"], item)?;
        }
    }
    if let Some(fields) = value.as_object() {
        if let Some(missing) = parts(schema, "required").iter().find(|name| !fields.contains_key(name.as_str().unwrap())) {
            return Err(format!("{missing} is missing in {value}"));
        }
        for (name, field) in fields {
            if let Some(schema) = schema["properties"].get(name) {
                check(document, schema, field).map_err(|why| format!("{name}: {why}"))?;
            }
        }
    }
    for part in parts(schema, "allOf") {
        matches(document, part, value)?;
    }
    let alternatives = parts(schema, "oneOf");
    let fitting = alternatives.iter().filter(|part| matches(document, part, value).is_ok()).count();
    if !alternatives.is_empty() && fitting != 1 {
        return Err(format!("{value} fits {fitting} of {} alternatives", alternatives.len()));
    }
    Ok(())
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

/// The fields that the schema names for this value.
fn properties(document: &Value, schema: &Value, value: &Value) -> BTreeSet<String> {
    let schema = resolve(document, schema);
    let own = schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned());
    let of_parts = parts(schema, "allOf").iter().chain(parts(schema, "oneOf").iter().filter(|part| matches(document, part, value).is_ok()));
    own.chain(of_parts.flat_map(|part| properties(document, part, value))).collect()
}

#[test]
fn it_sees_what_is_wrong() {
    let document = json!({"a": {"type": "object", "required": ["b"], "properties": {"b": {"type": ["integer", "null"]}}}});
    let schema = json!({"$ref": "#/a"});
    assert!(check(&document, &schema, &json!({"b": 1})).is_ok());
    assert!(check(&document, &schema, &json!({"b": null})).is_ok());
    for wrong in [json!({}), json!({"b": "1"}), json!({"b": 1.5}), json!({"b": 1, "c": 1}), json!([])] {
        assert!(check(&document, &schema, &wrong).is_err(), "{wrong}");
    }
}
