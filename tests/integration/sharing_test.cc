// One tenant's adapter in another's requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr char kShort[] = R"(tokens { ids: [1, 2, 3] }
                             sampling { temperature: 0 }
                             stopping { max_tokens: 4 ignore_eos: true })";

class SharingTest : public TenantServerTest {
 protected:
  void SetUp() override {
    StartWithTenants();
    ASSERT_TRUE(UploadAs("adapter-writer", "all-linear", "fr").ok());
  }

  grpc::Status ShareAs(const std::string& name, const std::string& visibility,
                       v1::AdapterVisibility* holds = nullptr) {
    v1::SetAdapterVisibilityRequest request;
    *request.mutable_visibility() = ParseProto<v1::AdapterVisibility>(visibility);
    v1::SetAdapterVisibilityResponse response;
    const grpc::Status status = adapters_->SetAdapterVisibility(As(name).get(), request, &response);
    if (holds != nullptr) {
      *holds = response.visibility();
    }
    return status;
  }
  static std::string With(const std::string& adapter) {
    return absl::StrCat(kShort, " adapter: \"", adapter, "\"");
  }
  grpc::Status GetAs(const std::string& name, const std::string& adapter,
                     v1::Adapter* found = nullptr) {
    v1::GetAdapterRequest request;
    request.set_adapter(adapter);
    v1::GetAdapterResponse response;
    const grpc::Status status = adapters_->GetAdapter(As(name).get(), request, &response);
    if (found != nullptr) {
      *found = response.adapter();
    }
    return status;
  }
  std::vector<std::string> SharedWith(const std::string& name) {
    v1::ListSharedAdaptersResponse response;
    EXPECT_TRUE(adapters_->ListSharedAdapters(As(name).get(), {}, &response).ok());
    std::vector<std::string> names;
    for (const v1::Adapter& adapter : response.adapters()) {
      names.push_back(absl::StrCat(adapter.owner(), "/", adapter.name(), "@", adapter.version()));
    }
    return names;
  }
  v1::GetUsageResponse UsageOf(const std::string& tenant) {
    v1::GetUsageRequest request;
    request.set_tenant(tenant);
    v1::GetUsageResponse response;
    EXPECT_TRUE(tenants_->GetUsage(As("operator").get(), request, &response).ok());
    return response;
  }
  v1::Sample AnswerOf(const std::string& name, const std::string& request) {
    v1::GenerateOnceResponse response;
    const grpc::Status status = GenerateAs(name, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.samples_size() == 0 ? v1::Sample() : response.samples(0);
  }
};

TEST_F(SharingTest, SharedAdapterAnswersAsItDoesForItsOwner) {
  ASSERT_TRUE(ShareAs("adapter-writer", R"(name: "fr" visibility: VISIBILITY_TENANTS
                                            tenants: "globex")")
                  .ok());
  const v1::Sample own = AnswerOf("inference", With("fr"));
  const v1::Sample theirs = AnswerOf("globex", With("acme/fr"));
  EXPECT_EQ(theirs.text(), own.text());
  EXPECT_NE(theirs.text(), AnswerOf("globex", kShort).text()) << "and not as the base does";
  EXPECT_EQ(theirs.finish().adapters(0).name(), "acme/fr");
  EXPECT_EQ(own.finish().adapters(0).name(), "fr");
  EXPECT_EQ(AnswerOf("globex", With("acme/fr@1")).text(), own.text());
  EXPECT_EQ(AnswerOf("inference", With("acme/fr")).finish().adapters(0).name(), "fr")
      << "its owner may say it in full";
}

TEST_F(SharingTest, NotSharedReadsAsNotThereToTheByte) {
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "mine").ok());
  // The same name each time: a private adapter, one that is gone, one of a tenant that never was.
  const grpc::Status hidden = GenerateAs("globex", With("acme/mine"));
  const grpc::Status hidden_get = GetAs("globex", "acme/mine@1");
  v1::DeleteAdapterRequest request;
  request.set_adapter("mine");
  v1::DeleteAdapterResponse response;
  ASSERT_TRUE(adapters_->DeleteAdapter(As("adapter-writer").get(), request, &response).ok());
  const grpc::Status gone = GenerateAs("globex", With("acme/mine"));
  const grpc::Status gone_get = GetAs("globex", "acme/mine@1");
  v1::DeleteTenantRequest end;
  end.set_name("acme");
  end.set_delete_adapters(true);
  v1::DeleteTenantResponse ended;
  ASSERT_TRUE(tenants_->DeleteTenant(As("operator").get(), end, &ended).ok());
  for (const grpc::Status& other : {gone, GenerateAs("globex", With("acme/mine"))}) {
    EXPECT_EQ(other.error_code(), hidden.error_code());
    EXPECT_EQ(other.error_message(), hidden.error_message());
    EXPECT_EQ(other.error_details().size(), hidden.error_details().size());
  }
  for (const grpc::Status& other : {gone_get, GetAs("globex", "acme/mine@1")}) {
    EXPECT_EQ(other.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(other.error_message(), hidden_get.error_message());
    EXPECT_EQ(other.error_details(), hidden_get.error_details());
  }
  EXPECT_EQ(ReasonOf(hidden), "ADAPTER_NOT_FOUND");
}

TEST_F(SharingTest, TakenBackShareIsRefusedFromTheNextRequestOn) {
  ASSERT_TRUE(ShareAs("tenant-admin", R"(name: "fr" visibility: VISIBILITY_PUBLIC)").ok());
  const auto context = As("globex");
  auto stream =
      generation_->Generate(context.get(), ParseProto<v1::GenerateRequest>(
                                               R"(tokens { ids: [1, 2, 3] } adapter: "acme/fr"
                            stopping { max_tokens: 60 ignore_eos: true })"));
  v1::GenerateResponse message;
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_TRUE(ShareAs("tenant-admin", R"(name: "fr" visibility: VISIBILITY_PRIVATE)").ok());
  EXPECT_EQ(ReasonOf(GenerateAs("globex", With("acme/fr"))), "ADAPTER_NOT_FOUND");
  while (stream->Read(&message)) {
  }
  EXPECT_TRUE(stream->Finish().ok()) << "what had begun finishes";
  EXPECT_THAT(SharedWith("globex"), SizeIs(0));
}

TEST_F(SharingTest, UsageIsTheCallersToPay) {
  ASSERT_TRUE(ShareAs("adapter-writer", R"(name: "fr" visibility: VISIBILITY_PUBLIC)").ok());
  AnswerOf("globex", With("acme/fr"));
  const v1::GetUsageResponse theirs = UsageOf("globex");
  ASSERT_THAT(theirs.adapters(), SizeIs(1));
  EXPECT_EQ(theirs.adapters(0).adapter(), "acme/fr");
  EXPECT_EQ(theirs.adapters(0).generated_tokens(), 4);
  EXPECT_THAT(UsageOf("acme").adapters(), SizeIs(0));
  ASSERT_TRUE(SetLimits("globex", "requests_per_second: 1").ok());
  AnswerOf("globex", With("acme/fr"));
  EXPECT_EQ(ReasonOf(GenerateAs("globex", With("acme/fr"))), "REQUEST_RATE") << "its own quota";
}

TEST_F(SharingTest, CachedPromptOfOneTenantIsNotSeenByAnotherOfTheSameAdapter) {
  ASSERT_TRUE(ShareAs("adapter-writer", R"(name: "fr" visibility: VISIBILITY_PUBLIC)").ok());
  std::string ids = "1";
  for (int i = 2; i < 50; ++i) {
    absl::StrAppend(&ids, ", ", i);
  }
  const std::string prompt =
      absl::StrCat("tokens { ids: [", ids, "] } stopping { max_tokens: 1 ignore_eos: true } ");
  AnswerOf("inference", absl::StrCat(prompt, "adapter: \"fr\""));
  const std::string shared = absl::StrCat(prompt, "adapter: \"acme/fr\"");
  EXPECT_GT(AnswerOf("inference", shared).finish().usage().cached_prompt_tokens(), 0)
      << "the test can see a hit";
  EXPECT_EQ(AnswerOf("globex", shared).finish().usage().cached_prompt_tokens(), 0);
  EXPECT_GT(AnswerOf("globex", shared).finish().usage().cached_prompt_tokens(), 0) << "its own is";
}

TEST_F(SharingTest, CatalogueShowsWhatIsSharedAndWithWhom) {
  v1::AdapterVisibility holds;
  ASSERT_TRUE(ShareAs("adapter-writer", R"(name: "fr" visibility: VISIBILITY_TENANTS
                                            tenants: ["initech", "globex", "globex"])",
                      &holds)
                  .ok());
  EXPECT_THAT(holds.tenants(), ElementsAre("globex", "initech"));
  EXPECT_THAT(SharedWith("globex"), ElementsAre("acme/fr@1"));
  EXPECT_THAT(SharedWith("inference"), SizeIs(0));
  v1::Adapter found;
  ASSERT_TRUE(GetAs("globex", "acme/fr", &found).ok());
  EXPECT_EQ(found.owner(), "acme");
  ASSERT_TRUE(GetAs("inference", "acme/fr", &found).ok());
  EXPECT_EQ(found.owner(), "") << "its own";
  v1::GetAdapterVisibilityRequest request;
  request.set_name("fr");
  v1::GetAdapterVisibilityResponse response;
  ASSERT_TRUE(adapters_->GetAdapterVisibility(As("inference").get(), request, &response).ok());
  EXPECT_EQ(response.visibility().visibility(), v1::VISIBILITY_TENANTS);
}

TEST_F(SharingTest, NameThatIsUsedAgainIsPrivate) {
  ASSERT_TRUE(ShareAs("adapter-writer", R"(name: "fr" visibility: VISIBILITY_PUBLIC)").ok());
  v1::DeleteAdapterRequest request;
  request.set_adapter("fr");
  v1::DeleteAdapterResponse response;
  ASSERT_TRUE(adapters_->DeleteAdapter(As("adapter-writer").get(), request, &response).ok());
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "fr").ok());
  EXPECT_EQ(ReasonOf(GenerateAs("globex", With("acme/fr"))), "ADAPTER_NOT_FOUND");
}

TEST_F(SharingTest, WrongSharesAreRefusedByField) {
  EXPECT_EQ(ReasonOf(ShareAs("adapter-writer", R"(name: "it" visibility: VISIBILITY_PUBLIC)")),
            "ADAPTER_NOT_FOUND");
  EXPECT_EQ(ReasonOf(ShareAs("globex", R"(name: "fr" visibility: VISIBILITY_PUBLIC)")),
            "ADAPTER_NOT_FOUND")
      << "another tenant's is not there";
  for (const char* wrong : {R"(name: "fr")", R"(name: "fr" visibility: VISIBILITY_TENANTS)",
                            R"(name: "fr" visibility: VISIBILITY_PUBLIC tenants: "globex")",
                            R"(name: "fr@1" visibility: VISIBILITY_PUBLIC)",
                            R"(name: "fr" visibility: VISIBILITY_TENANTS tenants: "a/b")"}) {
    EXPECT_EQ(ShareAs("adapter-writer", wrong).error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << wrong;
  }
  EXPECT_EQ(ShareAs("inference", R"(name: "fr" visibility: VISIBILITY_PUBLIC)").error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(SharingTest, ChangesOfAdaptersAreAudited) {
  ASSERT_TRUE(ShareAs("adapter-writer", R"(name: "fr" visibility: VISIBILITY_PUBLIC)").ok());
  v1::DeleteAdapterRequest request;
  request.set_adapter("fr");
  v1::DeleteAdapterResponse response;
  ASSERT_TRUE(adapters_->DeleteAdapter(As("adapter-writer").get(), request, &response).ok());
  v1::ListAuditEntriesRequest list;
  list.set_tenant("acme");
  list.set_page_size(4);
  v1::ListAuditEntriesResponse entries;
  ASSERT_TRUE(tenants_->ListAuditEntries(As("tenant-admin").get(), list, &entries).ok());
  std::vector<std::string> actions;
  for (const v1::AuditEntry& entry : entries.entries()) {
    actions.push_back(absl::StrCat(entry.action(), " ", entry.object(), " ", entry.outcome()));
    EXPECT_EQ(entry.actor(), "key:" + key_id("adapter-writer"));
  }
  EXPECT_THAT(actions, ElementsAre("DeleteAdapter fr ok", "DeleteAdapter fr ok",
                                   "SetAdapterVisibility fr ok", "UploadAdapter fr@1 ok"))
      << "a deletion also takes the share back";
}

}  // namespace
}  // namespace tenon
