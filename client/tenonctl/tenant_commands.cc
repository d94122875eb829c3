#include "client/tenonctl/tenant_commands.h"

#include <string>
#include <utility>

namespace tenon {
namespace {

std::vector<FlagSpec> LimitFlags() {
  return {{"requests-per-second", "N", "generation requests; 0: no limit, as for all of these"},
          {"tokens-per-minute", "N", "prompt and generated tokens"},
          {"concurrent-requests", "N", "generation requests in flight"},
          {"queued-requests", "N", "of these, without their first token"},
          {"max-tokens", "N", "tokens that one request may generate"},
          {"adapters", "N", "live adapter versions"},
          {"adapter-bytes", "N", "bytes of live adapter versions"},
          {"weight", "N", "part of the engine, relative to other tenants; 0 stands for 1"},
          {"kv-percent", "N", "of the KV memory, for its requests at most"},
          {"pinned-bytes", "N", "bytes of adapters that it may pin in memory"}};
}

std::vector<Command> MakeTenants() {
  return {
      {"tenants create", "NAME", "create a tenant",
       "  tenonctl tenants create acme --tokens-per-minute=100000 --adapters=20\n", LimitFlags(),
       RunCreateTenant, true},
      {"tenants list",
       "",
       "all tenants and their limits",
       "  tenonctl tenants list\n",
       {},
       RunListTenants,
       true},
      {"tenants limits", "NAME", "change the limits that are given, show all",
       "  tenonctl tenants limits acme --requests-per-second=50\n", LimitFlags(), RunLimits, true},
      {"tenants suspend",
       "NAME",
       "refuse a tenant's calls",
       "  tenonctl tenants suspend acme\n",
       {},
       RunSuspend,
       true},
      {"tenants resume",
       "NAME",
       "let a suspended tenant work again",
       "  tenonctl tenants resume acme\n",
       {},
       RunResume,
       true},
      {"tenants delete",
       "NAME",
       "delete a tenant and its keys",
       "  tenonctl tenants delete acme --delete-adapters\n",
       {{"delete-adapters", "",
         "delete its adapters too; without it a tenant that has some stays"}},
       RunDeleteTenant,
       true},
      {"tenants usage",
       "NAME",
       "requests and tokens since the beginning, by adapter",
       "  tenonctl tenants usage acme\n",
       {},
       RunUsage,
       true},
      {"tenants audit",
       "[NAME]",
       "who did what, the newest first",
       "  tenonctl tenants audit acme --max=20\n",
       {{"max", "N", "entries at most, 1 to 1000; else 100"}},
       RunAudit,
       true},
  };
}

std::vector<Command> MakeKeys() {
  return {
      {"keys create",
       "",
       "make an API key; its secret is shown this once",
       "  tenonctl keys create --role=operator\n"
       "  tenonctl keys create --tenant=acme --role=inference --expires-in=2160h\n",
       {{"tenant", "NAME", "whose; none for role operator"},
        {"role", "ROLE", "inference, adapter-writer, tenant-admin or operator"},
        {"expires-in", "DURATION", "else it does not expire"},
        {"note", "TEXT", "for people"}},
       RunCreateKey,
       true},
      {"keys list",
       "[TENANT]",
       "a tenant's keys, or the operators'",
       "  tenonctl keys list acme\n",
       {},
       RunListKeys,
       true},
      {"keys rotate",
       "ID",
       "make a key like an old one, which goes on for a while",
       "  tenonctl keys rotate 1f00c0ffee00d00d --overlap=24h\n",
       {{"overlap", "DURATION", "how long the old key stays valid, up to 720h; else 1h"}},
       RunRotateKey,
       true},
      {"keys revoke",
       "ID",
       "end a key at once",
       "  tenonctl keys revoke 1f00c0ffee00d00d\n",
       {},
       RunRevokeKey,
       true},
  };
}

}  // namespace

std::vector<Command> MakeTenantCommands() {
  std::vector<Command> commands = MakeTenants();
  for (Command& command : MakeKeys()) {
    commands.push_back(std::move(command));
  }
  return commands;
}

}  // namespace tenon
