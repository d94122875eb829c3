#include "tests/integration/server_fixture.h"

#include "absl/strings/str_cat.h"

namespace tenon {

v1::GenerateOnceResponse ServerTest::Generate(const std::string& request) {
  grpc::ClientContext context;
  v1::GenerateOnceResponse response;
  const grpc::Status status =
      generation_->GenerateOnce(&context, ParseProto<v1::GenerateRequest>(request), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

grpc::Status ServerTest::StatusOf(const std::string& request) {
  grpc::ClientContext context;
  v1::GenerateOnceResponse response;
  return generation_->GenerateOnce(&context, ParseProto<v1::GenerateRequest>(request), &response);
}

Joined ServerTest::Stream(const std::string& request) {
  grpc::ClientContext context;
  auto reader = generation_->Generate(&context, ParseProto<v1::GenerateRequest>(request));
  Joined joined;
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
    ++joined.num_messages;
    v1::Sample& sample = joined.samples[message.sample_index()];
    EXPECT_FALSE(sample.has_finish()) << "nothing follows the finish of a sample";
    sample.mutable_text()->append(message.text());
    sample.mutable_token_ids()->MergeFrom(message.token_ids());
    sample.mutable_logprobs()->MergeFrom(message.logprobs());
    if (message.has_finish()) {
      *sample.mutable_finish() = message.finish();
    }
  }
  joined.status = reader->Finish();
  return joined;
}

grpc::Status ServerTest::Upload(const std::vector<v1::UploadAdapterRequest>& messages,
                                v1::UploadAdapterResponse* response) {
  grpc::ClientContext context;
  auto writer = adapters_->UploadAdapter(&context, response);
  for (const v1::UploadAdapterRequest& message : messages) {
    if (!writer->Write(message)) {
      break;  // the server has ended the call; Finish says why
    }
  }
  writer->WritesDone();
  return writer->Finish();
}

v1::Adapter ServerTest::UploadTiny(const std::string& folder, const std::string& name) {
  v1::UploadAdapterResponse response;
  const grpc::Status status = Upload(UploadMessages(name, TinyAdapterFiles(folder)), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.adapter();
}

std::vector<v1::Adapter> ServerTest::List() {
  grpc::ClientContext context;
  v1::ListAdaptersResponse response;
  EXPECT_TRUE(adapters_->ListAdapters(&context, {}, &response).ok());
  return {response.adapters().begin(), response.adapters().end()};
}

std::vector<v1::UploadAdapterRequest> UploadMessages(
    const std::string& name, const std::map<std::string, std::string>& files, size_t chunk_bytes,
    const std::string& digest) {
  std::vector<v1::UploadAdapterRequest> messages(1);
  messages[0].mutable_header()->set_name(name);
  for (const auto& [file_name, bytes] : files) {
    for (size_t begin = 0; begin < bytes.size(); begin += chunk_bytes) {
      v1::FileChunk* chunk = messages.emplace_back().mutable_chunk();
      chunk->set_file_name(file_name);
      chunk->set_data(bytes.substr(begin, chunk_bytes));
    }
  }
  messages.emplace_back().mutable_digest()->set_sha256(digest);
  return messages;
}

std::map<std::string, std::string> TinyAdapterFiles(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    files[name] = ReadFile(TinyModelPath(absl::StrCat("adapters/", folder, "/", name)));
    EXPECT_FALSE(files[name].empty());
  }
  return files;
}

}  // namespace tenon
