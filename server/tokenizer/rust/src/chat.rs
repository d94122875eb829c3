//! Chat templates, in the dialect that `transformers` gives to Jinja.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{context, Environment, Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::{date, json, Code, Failure, Outcome};

/// Instructions that one rendering may execute. A turn costs some tens of them, so this is about
/// 100 000 turns: no conversation comes near, and an endless loop ends in well under a second.
const FUEL: u64 = 5_000_000;

/// Nested calls of macros and includes. Templates in the wild stay below 10.
const MAX_RECURSION: usize = 64;

const NAME: &str = "chat_template";

/// A compiled template with its constant variables (`bos_token` and the like).
pub struct ChatTemplate {
    environment: Environment<'static>,
    variables: BTreeMap<String, serde_json::Value>,
}

/// The error of the template's own `raise_exception(message)`.
#[derive(Debug)]
struct RaisedByTemplate(String);

impl fmt::Display for RaisedByTemplate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for RaisedByTemplate {}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone())
        .with_source(RaisedByTemplate(message)))
}

/// Jinja2 prints the constants as Python does.
fn python_formatter(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        out.write_str("None").map_err(Error::from)
    } else if value.kind() == minijinja::value::ValueKind::Bool {
        out.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from)
    } else {
        minijinja::escape_formatter(out, state, value)
    }
}

/// `transformers` replaces Jinja's filter, which escapes HTML, by Python's json.dumps.
fn to_json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = match indent {
        Some(width) if !width.is_none() => Some(usize::try_from(width)?),
        _ => None,
    };
    let style = json::Style {
        indent: indent.map(|width| width.min(16)),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: options.get::<Option<Vec<String>>>("separators")?,
    };
    options.assert_all_used()?;
    let tree = serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::InvalidOperation, "cannot serialize to JSON").with_source(error)
    })?;
    Ok(Value::from(json::dump(&tree, &style)))
}

/// Removes the tags {% generation %} and {% endgeneration %}, which mark training targets and
/// print nothing; the whitespace control of a removed tag is kept by an empty comment.
fn without_generation_tags(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let inner = &rest[start + 2..start + length];
        let left = inner.chars().next().filter(|c| "-+".contains(*c));
        let right = inner.chars().next_back().filter(|c| "-+".contains(*c));
        let word = inner.trim_matches(|c| c == '-' || c == '+').trim();
        kept.push_str(&rest[..start]);
        if word == "generation" || word == "endgeneration" {
            kept.push_str("{#");
            kept.extend(left);
            kept.push(' ');
            kept.extend(right);
            kept.push_str("#}");
        } else {
            kept.push_str(&rest[start..start + length + 2]);
        }
        rest = &rest[start + length + 2..];
    }
    kept.push_str(rest);
    kept
}

fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_formatter(python_formatter);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment.add_template_owned(NAME, without_generation_tags(source))?;
    Ok(environment)
}

/// Takes bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
    overrun: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max_bytes - self.bytes.len() {
            self.overrun = true;
            return Err(io::Error::new(io::ErrorKind::Other, "output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raised_message(error: &Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(raised) = current.downcast_ref::<RaisedByTemplate>() {
            return Some(raised.0.clone());
        }
        cause = current.source();
    }
    None
}

fn render_failure(error: &Error) -> Failure {
    if let Some(message) = raised_message(error) {
        return Failure::new(Code::Raised, message);
    }
    match error.kind() {
        ErrorKind::OutOfFuel => {
            Failure::new(Code::Limit, format!("the template exceeds {FUEL} instructions"))
        }
        _ => Failure::new(Code::Failed, error),
    }
}

impl ChatTemplate {
    pub fn new(source: &str, variables_json: &[u8]) -> Outcome<Self> {
        let environment =
            environment(source).map_err(|error| Failure::new(Code::Malformed, error))?;
        let variables = serde_json::from_slice(variables_json)
            .map_err(|error| Failure::new(Code::Malformed, error))?;
        Ok(ChatTemplate { environment, variables })
    }

    pub fn render(
        &self,
        messages_json: &[u8],
        add_generation_prompt: bool,
        now_unix_s: i64,
        max_output_bytes: usize,
    ) -> Outcome<Vec<u8>> {
        let messages: serde_json::Value = serde_json::from_slice(messages_json)
            .map_err(|error| Failure::new(Code::Malformed, error))?;
        let strftime_now = move |format: String| date::strftime(&format, now_unix_s);
        let context = context! {
            messages => Value::from_serialize(&messages),
            add_generation_prompt,
            tools => Value::from(()),
            documents => Value::from(()),
            strftime_now => Value::from_function(strftime_now),
            ..Value::from_serialize(&self.variables)
        };
        let mut output =
            Bounded { bytes: Vec::new(), max_bytes: max_output_bytes, overrun: false };
        let template =
            self.environment.get_template(NAME).map_err(|error| Failure::new(Code::Failed, error))?;
        match template.render_captured_to(context, &mut output) {
            Ok(_) => Ok(output.bytes),
            Err(_) if output.overrun => {
                let message = format!("the rendered chat exceeds {max_output_bytes} bytes");
                Err(Failure::new(Code::Limit, message))
            }
            Err(error) => Err(render_failure(&error)),
        }
    }
}
