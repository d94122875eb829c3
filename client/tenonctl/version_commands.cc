#include "client/tenonctl/version_commands.h"

namespace tenon {

std::vector<Command> MakeVersionCommands() {
  const FlagSpec expect = {"expect", "VERSION",
                           "only if the alias points to this version now; 0: to none"};
  return {
      {"adapters watch",
       "",
       "a table that follows every change; lines of changes without a terminal",
       "  tenonctl adapters watch\n  tenonctl adapters watch --json | jq .generation\n",
       {{"once", "", "print the table as it is now and end"}},
       RunWatch},
      {"adapters promote",
       "NAME@VERSION [ALIAS]",
       "point an alias (latest, without one) at a version, or at where another alias points",
       "  tenonctl adapters promote ticket-router@3 stable --expect=2\n"
       "  tenonctl adapters promote ticket-router@canary\n"
       "  tenonctl adapters promote ticket-router@canary --remove\n",
       {expect, {"remove", "", "remove the alias NAME@ALIAS"}},
       RunPromote},
      {"adapters rollback",
       "NAME[@ALIAS]",
       "point an alias at the version that it pointed to before",
       "  tenonctl adapters rollback ticket-router\n"
       "  tenonctl adapters rollback ticket-router@stable --expect=3\n",
       {expect},
       RunRollback},
      {"adapters split",
       "NAME ALIAS=PERCENT ...",
       "send shares of a bare name's requests to other aliases",
       "  tenonctl adapters split ticket-router canary=5\n"
       "  tenonctl adapters split ticket-router --end\n",
       {{"end", "", "give latest all of them again"}},
       RunSplit},
      {"adapters history",
       "NAME",
       "who changed what, newest first",
       "  tenonctl adapters history ticket-router --max=10\n",
       {{"max", "N", "changes at most, up to 1000; default 100"}},
       RunHistory},
      {"adapters diff",
       "NAME@A NAME@B",
       "what differs between two versions",
       "  tenonctl adapters diff ticket-router@stable ticket-router@canary\n",
       {},
       RunDiff},
  };
}

}  // namespace tenon
