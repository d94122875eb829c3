// TextChunk -> messages of generation.proto.
#ifndef TENON_SERVER_RPC_RESPONSE_CONVERSION_H_
#define TENON_SERVER_RPC_RESPONSE_CONVERSION_H_

#include <string>
#include <utility>

#include "server/engine/text_generation.h"
#include "server/tokenizer/tokenizer.h"
#include "tenon/v1/generation.pb.h"

namespace tenon {

/// Turns the chunks of one request into responses. Cheap to make; borrows both arguments, which
/// outlive it.
class ResponseWriter {
 public:
  /// quantization: how the base is computed, for Finish.
  ResponseWriter(const TextGeneration* generation, const Tokenizer* tokenizer, bool with_token_ids,
                 std::string quantization)
      : generation_(generation),
        tokenizer_(tokenizer),
        with_token_ids_(with_token_ids),
        quantization_(std::move(quantization)) {}

  /// Overwrites `response`. False when it would say nothing (text held back, tokens not asked for).
  bool Write(const TextChunk& chunk, v1::GenerateResponse& response) const;

  /// Adds the chunk to the answer, whose samples are there already.
  void Append(const TextChunk& chunk, v1::GenerateOnceResponse& response) const;

 private:
  template <typename Message>
  void AddTokens(const TextChunk& chunk, Message& message) const;
  void FillLogprobs(const SampledToken& token, v1::TokenLogprobs* out) const;
  void FillFinish(const TextFinish& finish, v1::Finish* out) const;

  const TextGeneration* const generation_;
  const Tokenizer* const tokenizer_;
  const bool with_token_ids_;
  const std::string quantization_;
};

/// kNone and the reasons that are errors have no counterpart: UNSPECIFIED.
v1::FinishReason ToProto(FinishReason reason);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_RESPONSE_CONVERSION_H_
