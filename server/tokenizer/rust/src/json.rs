//! JSON as Python's `json.dumps` writes it, which is what models saw in training.

use serde_json::Value;

/// The arguments of `json.dumps` that chat templates use.
pub struct Style {
    /// Spaces per level; None puts everything on one line.
    pub indent: Option<usize>,
    pub ensure_ascii: bool,
    pub sort_keys: bool,
    /// [between items, between key and value]; None gives Python's defaults.
    pub separators: Option<Vec<String>>,
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    item_separator: &'a str,
    key_separator: &'a str,
}

pub fn dump(value: &Value, style: &Style) -> String {
    let (item_separator, key_separator) = match &style.separators {
        Some(pair) if pair.len() == 2 => (pair[0].as_str(), pair[1].as_str()),
        _ if style.indent.is_some() => (",", ": "),
        _ => (", ", ": "),
    };
    let mut writer = Writer { out: String::new(), style, item_separator, key_separator };
    writer.value(value, 0);
    writer.out
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.sequence('[', ']', items.iter(), depth, |writer, item| {
                    writer.value(item, depth + 1)
                });
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.style.sort_keys {
                    entries.sort_by(|a, b| a.0.cmp(b.0));
                }
                self.sequence('{', '}', entries.into_iter(), depth, |writer, (key, item)| {
                    writer.string(key);
                    writer.out.push_str(writer.key_separator);
                    writer.value(item, depth + 1);
                });
            }
            scalar => self.out.push_str(&scalar.to_string()),
        }
    }

    fn sequence<T>(
        &mut self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let empty = items.len() == 0;
        self.out.push(open);
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push_str(self.item_separator);
            }
            self.new_line(depth + 1);
            write(self, item);
        }
        if !empty {
            self.new_line(depth);
        }
        self.out.push(close);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(width) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.style.ensure_ascii && !c.is_ascii()) => self.escape(c),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, c: char) {
        let mut units = [0u16; 2];
        for unit in c.encode_utf16(&mut units) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}
