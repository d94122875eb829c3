//! The C ABI of `tenon_tokenizer.h`: Hugging Face tokenizers and chat templates for a C++ server.
//!
//! Every entry runs under `catch_unwind`, so that a panic of a dependency becomes an error code and
//! never crosses the boundary. Pointers follow the contract in the header; slices made from them
//! live only for the call.

mod chat;
mod date;
mod json;
mod text;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice;

use chat::ChatTemplate;
use text::TextTokenizer;

/// Mirrors `tenon_code`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    Ok = 0,
    InvalidUtf8 = 1,
    Malformed = 2,
    Raised = 3,
    Limit = 4,
    Failed = 5,
    Panic = 6,
}

/// Why an entry failed; its message goes to the caller.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl ToString) -> Self {
        Failure { code, message: message.to_string() }
    }
}

pub type Outcome<T> = Result<T, Failure>;

/// Mirrors `tenon_bytes`: a boxed slice that the caller gives back to `tenon_bytes_free`.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    size: usize,
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let boxed = bytes.into_boxed_slice();
        let size = boxed.len();
        Bytes { data: Box::into_raw(boxed) as *mut u8, size }
    }
}

/// Mirrors `tenon_ids`.
#[repr(C)]
pub struct Ids {
    data: *mut i32,
    size: usize,
}

impl From<Vec<i32>> for Ids {
    fn from(ids: Vec<i32>) -> Self {
        let boxed = ids.into_boxed_slice();
        let size = boxed.len();
        Ids { data: Box::into_raw(boxed) as *mut i32, size }
    }
}

unsafe fn view<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        slice::from_raw_parts(data, size)
    }
}

unsafe fn text_view<'a>(data: *const u8, size: usize) -> Outcome<&'a str> {
    std::str::from_utf8(view(data, size)).map_err(|error| {
        let message = format!("not valid UTF-8 from byte {} of {}", error.valid_up_to(), size);
        Failure::new(Code::InvalidUtf8, message)
    })
}

fn panic_message(payload: Box<dyn std::any::Any + Send>) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text.to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a message".to_string()
    }
}

/// Runs `body`, stores its result in `*out` or its message in `*error`, and answers the code.
unsafe fn guarded<T>(out: *mut T, error: *mut Bytes, body: impl FnOnce() -> Outcome<T>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => {
            out.write(value);
            return Code::Ok as i32;
        }
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::new(Code::Panic, panic_message(payload)),
    };
    error.write(failure.message.into_bytes().into());
    failure.code as i32
}

/// Drops what `into_raw` made. A destructor that panics must not unwind into C.
unsafe fn release<T: ?Sized>(pointer: *mut T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(pointer))));
}

#[no_mangle]
pub unsafe extern "C" fn tenon_bytes_free(bytes: Bytes) {
    if !bytes.data.is_null() {
        release(std::ptr::slice_from_raw_parts_mut(bytes.data, bytes.size));
    }
}

#[no_mangle]
pub unsafe extern "C" fn tenon_ids_free(ids: Ids) {
    if !ids.data.is_null() {
        release(std::ptr::slice_from_raw_parts_mut(ids.data, ids.size));
    }
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_create(
    json: *const u8,
    json_size: usize,
    out: *mut *mut TextTokenizer,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || {
        let tokenizer = TextTokenizer::from_json(view(json, json_size))?;
        Ok(Box::into_raw(Box::new(tokenizer)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_free(tokenizer: *mut TextTokenizer) {
    if !tokenizer.is_null() {
        release(tokenizer);
    }
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_encode(
    tokenizer: *const TextTokenizer,
    text: *const u8,
    text_size: usize,
    add_special_tokens: bool,
    out: *mut Ids,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || {
        let ids = (*tokenizer).encode(text_view(text, text_size)?, add_special_tokens)?;
        Ok(ids.into())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_decode(
    tokenizer: *const TextTokenizer,
    ids: *const i32,
    num_ids: usize,
    skip_special_tokens: bool,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || {
        let text = (*tokenizer).decode(view(ids, num_ids), skip_special_tokens)?;
        Ok(text.into_bytes().into())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_token(
    tokenizer: *const TextTokenizer,
    id: i32,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || Ok((*tokenizer).token(id)?.into_bytes().into()))
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_token_id(
    tokenizer: *const TextTokenizer,
    token: *const u8,
    token_size: usize,
    out: *mut i32,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || Ok((*tokenizer).token_id(text_view(token, token_size)?)))
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_vocab_size(tokenizer: *const TextTokenizer) -> i32 {
    (*tokenizer).vocab_size
}

#[no_mangle]
pub unsafe extern "C" fn tenon_tokenizer_is_special(
    tokenizer: *const TextTokenizer,
    id: i32,
) -> bool {
    (*tokenizer).is_special(id)
}

#[no_mangle]
pub unsafe extern "C" fn tenon_chat_template_create(
    source: *const u8,
    source_size: usize,
    variables_json: *const u8,
    variables_size: usize,
    out: *mut *mut ChatTemplate,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || {
        let source = text_view(source, source_size)?;
        let template = ChatTemplate::new(source, view(variables_json, variables_size))?;
        Ok(Box::into_raw(Box::new(template)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn tenon_chat_template_free(template: *mut ChatTemplate) {
    if !template.is_null() {
        release(template);
    }
}

#[no_mangle]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn tenon_chat_template_render(
    template: *const ChatTemplate,
    messages_json: *const u8,
    messages_size: usize,
    add_generation_prompt: bool,
    now_unix_s: i64,
    max_output_bytes: usize,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    guarded(out, error, || {
        let messages = view(messages_json, messages_size);
        let text =
            (*template).render(messages, add_generation_prompt, now_unix_s, max_output_bytes)?;
        Ok(text.into())
    })
}
