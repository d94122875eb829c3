// tenonctl generate, chat and model.
#include <iterator>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/tenonctl/command.h"
#include "client/tenonctl/output.h"
#include "client/tenonctl/request_flags.h"

namespace tenon {
namespace {

// What a terminal shows must not control it; a file or a pipe gets the text as it is.
std::string Shown(absl::string_view text, const Console& console) {
  return console.out_is_terminal ? PrintableText(text) : std::string(text);
}

std::string ReadAll(std::istream& in) {
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

// Streams one sample to the console and returns its whole text.
absl::StatusOr<std::string> StreamAnswer(const Client& client, const v1::GenerateRequest& request,
                                         bool verbose, Console& console) {
  std::string answer;
  v1::Finish finish;
  const absl::Status status = client.Generate(request, [&](const v1::GenerateResponse& response) {
    answer += response.text();
    console.out << Shown(response.text(), console) << std::flush;
    if (response.has_finish()) {
      finish = response.finish();
    }
    return console.out.good();
  });
  if (!answer.empty() && !absl::EndsWith(answer, "\n")) {
    console.out << "\n" << std::flush;
  }
  if (!status.ok()) {
    return status;
  }
  if (verbose) {
    console.err << FormatFinish(finish);
  }
  return answer;
}

CommandResult AnswerAtOnce(const Client& client, const v1::GenerateRequest& request,
                           const Arguments& arguments, Console& console) {
  const absl::StatusOr<v1::GenerateOnceResponse> response = client.GenerateOnce(request);
  if (!response.ok()) {
    return CommandResult::Of(response.status());
  }
  if (arguments.GetSwitch("json")) {
    console.out << ToJson(*response);
    return {};
  }
  int index = 0;
  for (const v1::Sample& sample : response->samples()) {
    console.out << "--- sample " << index++ << "\n" << Shown(sample.text(), console) << "\n";
    if (arguments.GetSwitch("verbose")) {
      console.err << FormatFinish(sample.finish());
    }
  }
  return {};
}

// Adds the turn and the model's answer to the conversation; a turn that failed leaves no trace.
absl::Status Converse(const Client& client, const std::string& line, bool verbose,
                      v1::GenerateRequest& request, Console& console) {
  auto& messages = *request.mutable_chat()->mutable_messages();
  v1::ChatMessage& question = *messages.Add();
  question.set_role("user");
  question.set_content(line);
  absl::StatusOr<std::string> answer = StreamAnswer(client, request, verbose, console);
  if (!answer.ok()) {
    messages.RemoveLast();
    return answer.status();
  }
  v1::ChatMessage& reply = *messages.Add();
  reply.set_role("assistant");
  reply.set_content(*std::move(answer));
  return absl::OkStatus();
}

}  // namespace

CommandResult RunGenerate(const Client& client, const Arguments& arguments, Console& console) {
  absl::StatusOr<v1::GenerateRequest> request = RequestFromFlags(arguments);
  if (!request.ok()) {
    return CommandResult::Usage(request.status().message());
  }
  if (arguments.words().size() > 1) {
    return CommandResult::Usage(
        absl::StrCat("one prompt is wanted, not ", arguments.words().size(), "; put it in quotes"));
  }
  const std::string word = arguments.words().empty() ? "-" : arguments.words()[0];
  if (arguments.words().empty() && console.in_is_terminal) {
    return CommandResult::Usage("a prompt is wanted");
  }
  const std::string prompt = word == "-" ? ReadAll(console.in) : word;
  if (arguments.GetSwitch("chat")) {
    v1::ChatMessage& message = *request->mutable_chat()->add_messages();
    message.set_role("user");
    message.set_content(prompt);
  } else {
    request->set_prompt(prompt);
  }
  if (arguments.GetSwitch("json") || request->sampling().n() > 1) {
    return AnswerAtOnce(client, *request, arguments, console);
  }
  return CommandResult::Of(
      StreamAnswer(client, *request, arguments.GetSwitch("verbose"), console).status());
}

CommandResult RunChat(const Client& client, const Arguments& arguments, Console& console) {
  absl::StatusOr<v1::GenerateRequest> request = RequestFromFlags(arguments);
  if (!request.ok()) {
    return CommandResult::Usage(request.status().message());
  }
  if (!arguments.words().empty() || arguments.GetSwitch("json")) {
    return CommandResult::Usage(
        "chat takes neither words nor --json; its turns are read line by line");
  }
  if (arguments.has("system")) {
    v1::ChatMessage& system = *request->mutable_chat()->add_messages();
    system.set_role("system");
    system.set_content(arguments.GetText("system", ""));
  }
  std::string line;
  while (true) {
    console.out << (console.in_is_terminal ? "> " : "") << std::flush;
    if (!std::getline(console.in, line)) {
      console.out << (console.in_is_terminal ? "\n" : "");
      return {};
    }
    if (line.empty()) {
      continue;
    }
    const absl::Status status =
        Converse(client, line, arguments.GetSwitch("verbose"), *request, console);
    // A person may try again; a script must see the failure.
    if (!status.ok() && !console.in_is_terminal) {
      return CommandResult::Of(status);
    }
    if (!status.ok()) {
      console.err << "tenonctl: " << status.ToString() << "\n";
    }
  }
}

CommandResult RunModel(const Client& client, const Arguments& arguments, Console& console) {
  if (!arguments.words().empty()) {
    return CommandResult::Usage("model takes no words");
  }
  const absl::StatusOr<v1::GetModelResponse> model = client.GetModel();
  if (model.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*model) : FormatModel(*model));
  }
  return CommandResult::Of(model.status());
}

}  // namespace tenon
