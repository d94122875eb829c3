// Stores that earlier releases made open in this one, with all that was in them.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/adapters/store/store_test_fixture.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using testing::ElementsAre;
using testing::Pair;

class CatalogueUpgradeTest : public StoreTest {
 protected:
  // Makes the catalogue the one of data/<dump>, an `sqlite3 .dump` of what a release wrote.
  void Install(const std::string& dump) {
    store_.reset();
    for (const char* file : {"catalogue.db", "catalogue.db-wal", "catalogue.db-shm"}) {
      std::filesystem::remove(root_ / file);
    }
    std::ifstream file(SourcePath(absl::StrCat("tests/adapters/store/data/", dump)));
    const std::string sql{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(sql.empty());
    absl::StatusOr<SqliteConnection> db =
        SqliteConnection::Open((root_ / "catalogue.db").string(), "test");
    ASSERT_TRUE(db.ok()) << db.status();
    const absl::Status loaded = db->Execute(sql.c_str());
    ASSERT_TRUE(loaded.ok()) << loaded;
  }

  std::vector<std::string> Ids() {
    std::vector<std::string> ids;
    const absl::StatusOr<std::vector<AdapterInfo>> list = store_->List();
    EXPECT_TRUE(list.ok()) << list.status();
    for (const AdapterInfo& info : *list) {
      ids.push_back(info.id.ToString());
    }
    return ids;
  }
};

// The script that made it: put acme/fr one, acme/fr two, acme/de one, delete acme/fr@1, put acme/fr
// three, put other/fr one.
TEST_F(CatalogueUpgradeTest, StoreOfSchemaTwoKeepsWhatBareNamesMeant) {
  Install("schema_2.sql");
  for (int i = 0; i < 2; ++i) {  // and once upgraded, again
    Reopen();
    EXPECT_THAT(Ids(), ElementsAre("acme/de@1", "acme/fr@2", "acme/fr@3", "other/fr@1"));
    const absl::StatusOr<AdapterName> fr = store_->Name("acme", "fr");
    ASSERT_TRUE(fr.ok()) << fr.status();
    EXPECT_THAT(fr->pointers.aliases, ElementsAre(Pair("latest", 3)));
    EXPECT_EQ(fr->versions.at(3)->acceptance, "");
    const absl::StatusOr<std::vector<AliasChange>> history = store_->History("acme", "fr");
    ASSERT_TRUE(history.ok()) << history.status();
    ASSERT_EQ(history->size(), 2u);
    EXPECT_EQ(history->at(1).from, 2);
    EXPECT_EQ(history->at(1).to, 3);
    EXPECT_EQ(history->at(1).actor, "server");
  }
  EXPECT_EQ(Put("acme", "fr", AdapterFiles("w"))->id.version, 4);
  EXPECT_EQ(store_->Name("acme", "fr")->pointers.aliases.at("latest"), 4);
}

TEST_F(CatalogueUpgradeTest, StoreOfSchemaOneGoesThroughBothSteps) {
  Install("schema_2.sql");
  {
    absl::StatusOr<SqliteConnection> db =
        SqliteConnection::Open((root_ / "catalogue.db").string(), "test");
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE(db->Execute("ALTER TABLE versions DROP COLUMN report").ok());
    ASSERT_TRUE(db->Execute("UPDATE schema_version SET version = 1").ok());
  }
  Reopen();
  EXPECT_THAT(Ids(), ElementsAre("acme/de@1", "acme/fr@2", "acme/fr@3", "other/fr@1"));
  const absl::StatusOr<AdapterName> de = store_->Name("acme", "de");
  ASSERT_TRUE(de.ok()) << de.status();
  EXPECT_EQ(de->versions.at(1)->num_virtual_tokens, 0);
  EXPECT_TRUE(de->versions.at(1)->has_weight);
  EXPECT_THAT(de->pointers.aliases, ElementsAre(Pair("latest", 1)));
}

TEST_F(CatalogueUpgradeTest, AliasesOfAnUpgradedStoreMove) {
  Install("schema_2.sql");
  Reopen();
  ASSERT_TRUE(store_
                  ->MoveAlias({"acme", "fr", "latest", 2, /*expected_version=*/3,
                               AliasAction::kPromote, "key:ops"})
                  .ok());
  EXPECT_TRUE(Delete({"acme", "fr", 3}).ok());
  EXPECT_THAT(Ids(), ElementsAre("acme/de@1", "acme/fr@2", "other/fr@1"));
}

}  // namespace
}  // namespace tenon
