//! Text to token ids and back.

use std::collections::HashSet;
use std::str::FromStr;

use tokenizers::Tokenizer;

use crate::{Code, Failure, Outcome};

/// One `tokenizer.json`. Immutable after loading, so shared by any number of threads.
pub struct TextTokenizer {
    inner: Tokenizer,
    special_ids: HashSet<u32>,
    /// One more than the largest id.
    pub vocab_size: i32,
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Code::Failed, error)
}

impl TextTokenizer {
    pub fn from_json(json: &[u8]) -> Outcome<Self> {
        let malformed = |error: &dyn ToString| Failure::new(Code::Malformed, error.to_string());
        let source = std::str::from_utf8(json).map_err(|error| malformed(&error))?;
        let mut inner = Tokenizer::from_str(source).map_err(|error| malformed(&error))?;
        // Both are training leftovers in a tokenizer.json: a prompt is never cut or padded here.
        inner.with_truncation(None).map_err(|error| malformed(&error))?;
        inner.with_padding(None);
        let special_ids = inner
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .collect();
        let largest = inner.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |id| id as i64 + 1);
        let vocab_size = i32::try_from(vocab_size).map_err(|error| malformed(&error))?;
        Ok(TextTokenizer { inner, special_ids, vocab_size })
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Outcome<Vec<i32>> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(failed)?;
        // Ids are below vocab_size, which is an i32.
        Ok(encoding.get_ids().iter().map(|id| *id as i32).collect())
    }

    /// Ids outside the vocabulary decode to nothing.
    pub fn decode(&self, ids: &[i32], skip_special_tokens: bool) -> Outcome<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.inner.decode(&ids, skip_special_tokens).map_err(failed)
    }

    /// The token's text as it appears after a decoder has turned its alphabet into text. The
    /// neutral token before it keeps decoders from treating it as the first of a text.
    pub fn token(&self, id: i32) -> Outcome<String> {
        let raw = u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id));
        let Some(raw) = raw else {
            return Ok(String::new());
        };
        if self.special_ids.contains(&(id as u32)) {
            return Ok(raw);
        }
        let Some(decoder) = self.inner.get_decoder() else {
            return Ok(raw);
        };
        use tokenizers::Decoder;
        let with_lead = decoder.decode(vec!["a".to_string(), raw]).map_err(failed)?;
        Ok(with_lead.strip_prefix('a').unwrap_or(&with_lead).to_string())
    }

    /// -1 when there is no such token.
    pub fn token_id(&self, token: &str) -> i32 {
        self.inner.token_to_id(token).map_or(-1, |id| id as i32)
    }

    pub fn is_special(&self, id: i32) -> bool {
        u32::try_from(id).is_ok_and(|id| self.special_ids.contains(&id))
    }
}
