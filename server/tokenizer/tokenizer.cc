#include "server/tokenizer/tokenizer.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "server/tokenizer/tokenizer_config.h"

namespace tenon {
namespace {

using Json = nlohmann::json;

// The largest tokenizer.json in use (256 000 tokens with merges) is about 35 MiB.
constexpr int64_t kMaxTokenizerBytes = int64_t{512} << 20;

const uint8_t* Data(absl::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

// Copies and frees what the crate handed over.
std::string TakeBytes(tenon_bytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.size);
  tenon_bytes_free(bytes);
  return text;
}

std::vector<int32_t> TakeIds(tenon_ids ids) {
  std::vector<int32_t> taken(ids.data, ids.data + ids.size);
  tenon_ids_free(ids);
  return taken;
}

// The error of a call about `field`, a path in the client's request or a file.
absl::Status StatusFrom(int32_t code, tenon_bytes error, absl::string_view field) {
  const std::string message = TakeBytes(error);
  switch (code) {
    case TENON_INVALID_UTF8:
    case TENON_MALFORMED:
    case TENON_RAISED:
    case TENON_LIMIT:
    case TENON_FAILED:
      return InvalidFieldError(field, message);
    default:
      return absl::InternalError(absl::StrCat(field, ": the tokenizer panicked: ", message));
  }
}

std::string TemplateVariables(const TokenizerConfig& config) {
  return Json(config.special_tokens).dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace

Tokenizer::Tokenizer(TokenizerOptions options, TokenizerHandle tokenizer)
    : options_(std::move(options)),
      tokenizer_(std::move(tokenizer)),
      vocab_size_(tenon_tokenizer_vocab_size(tokenizer_.get())) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& folder,
                                                           TokenizerOptions options) {
  const std::string path = absl::StrCat(folder, "/tokenizer.json");
  TENON_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxTokenizerBytes));
  TENON_ASSIGN_OR_RETURN(const TokenizerConfig config, ReadTokenizerConfig(folder));
  tenon_bytes error = {};
  tenon_tokenizer* created = nullptr;
  int32_t code = tenon_tokenizer_create(Data(json), json.size(), &created, &error);
  if (code != TENON_OK) {
    return StatusFrom(code, error, path);
  }
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(options), TokenizerHandle(created)));
  const auto id_of = [&](const char* key) -> std::optional<int32_t> {
    const auto found = config.special_tokens.find(key);
    return found == config.special_tokens.end() ? std::nullopt
                                                : tokenizer->FindToken(found->second);
  };
  tokenizer->bos_token_id_ = id_of("bos_token");
  tokenizer->eos_token_id_ = id_of("eos_token");
  tokenizer->pad_token_id_ = id_of("pad_token");
  TENON_RETURN_IF_ERROR(tokenizer->ChooseBosCorrection(config.add_bos_token));
  if (config.chat_template.has_value()) {
    const std::string variables = TemplateVariables(config);
    tenon_chat_template* chat = nullptr;
    code = tenon_chat_template_create(Data(*config.chat_template), config.chat_template->size(),
                                      Data(variables), variables.size(), &chat, &error);
    if (code != TENON_OK) {
      return StatusFrom(code, error, absl::StrCat(folder, ": chat template"));
    }
    tokenizer->chat_template_.reset(chat);
  }
  return tokenizer;
}

absl::Status Tokenizer::ChooseBosCorrection(std::optional<bool> add_bos_token) {
  if (!add_bos_token.has_value() || !bos_token_id_.has_value()) {
    return absl::OkStatus();
  }
  TENON_ASSIGN_OR_RETURN(const std::vector<int32_t> around, EncodeUnchecked("", true));
  const bool has_bos = !around.empty() && around.front() == *bos_token_id_;
  if (*add_bos_token && !has_bos) {
    bos_correction_ = BosCorrection::kPrepend;
  } else if (!*add_bos_token && has_bos) {
    bos_correction_ = BosCorrection::kDrop;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeUnchecked(absl::string_view text,
                                                                bool add_special_tokens) const {
  tenon_bytes error = {};
  tenon_ids ids = {};
  const int32_t code = tenon_tokenizer_encode(tokenizer_.get(), Data(text), text.size(),
                                              add_special_tokens, &ids, &error);
  if (code != TENON_OK) {
    return StatusFrom(code, error, "text");
  }
  return TakeIds(ids);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool add_special_tokens) const {
  if (static_cast<int64_t>(text.size()) > options_.max_text_bytes) {
    return InvalidFieldError("text", absl::StrCat(text.size(), " bytes exceed the limit of ",
                                                  options_.max_text_bytes, " bytes"));
  }
  TENON_ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeUnchecked(text, add_special_tokens));
  if (add_special_tokens && bos_correction_ == BosCorrection::kPrepend) {
    ids.insert(ids.begin(), *bos_token_id_);
  } else if (add_special_tokens && bos_correction_ == BosCorrection::kDrop) {
    ids.erase(ids.begin());
  }
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                              bool skip_special_tokens) const {
  tenon_bytes error = {};
  tenon_bytes text = {};
  const int32_t code = tenon_tokenizer_decode(tokenizer_.get(), ids.data(), ids.size(),
                                              skip_special_tokens, &text, &error);
  if (code != TENON_OK) {
    return StatusFrom(code, error, "ids");
  }
  return TakeBytes(text);
}

std::string Tokenizer::TokenText(int32_t id) const {
  tenon_bytes out = {};
  tenon_bytes error = {};
  if (tenon_tokenizer_token(tokenizer_.get(), id, &out, &error) != TENON_OK) {
    tenon_bytes_free(error);
    return "";
  }
  return TakeBytes(out);
}

bool Tokenizer::is_special(int32_t id) const {
  return tenon_tokenizer_is_special(tokenizer_.get(), id);
}

std::optional<int32_t> Tokenizer::FindToken(absl::string_view name) const {
  int32_t id = -1;
  tenon_bytes error = {};
  if (tenon_tokenizer_token_id(tokenizer_.get(), Data(name), name.size(), &id, &error) !=
      TENON_OK) {
    tenon_bytes_free(error);
    return std::nullopt;
  }
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

absl::StatusOr<std::string> Tokenizer::RenderChat(const std::vector<ChatTurn>& turns,
                                                  bool add_generation_prompt) const {
  if (chat_template_ == nullptr) {
    return PreconditionError("NO_CHAT_TEMPLATE", "chat",
                             "the model has no chat template; send a prompt instead");
  }
  int64_t num_bytes = 0;
  for (const ChatTurn& turn : turns) {
    num_bytes += static_cast<int64_t>(turn.role.size() + turn.content.size());
  }
  if (num_bytes > options_.max_text_bytes) {
    return InvalidFieldError("chat.messages", absl::StrCat(num_bytes, " bytes exceed the limit of ",
                                                           options_.max_text_bytes, " bytes"));
  }
  std::string messages;
  try {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();  // templates print the keys
    for (const ChatTurn& turn : turns) {
      array.push_back({{"role", turn.role}, {"content", turn.content}});
    }
    messages = array.dump();
  } catch (const Json::exception&) {  // thrown for text that is not UTF-8 only
    return InvalidFieldError("chat.messages", "not valid UTF-8");
  }
  tenon_bytes error = {};
  tenon_bytes prompt = {};
  const int32_t code =
      tenon_chat_template_render(chat_template_.get(), Data(messages), messages.size(),
                                 add_generation_prompt, absl::ToUnixSeconds(options_.clock()),
                                 static_cast<size_t>(options_.max_text_bytes), &prompt, &error);
  if (code != TENON_OK) {
    return StatusFrom(code, error, "chat.messages");
  }
  return TakeBytes(prompt);
}

}  // namespace tenon
