// The command line's chapter "corpora": data fetch.
#include <fmt/format.h>

#include "orchestrator/cli.h"
#include "orchestrator/data_fetch.h"

namespace orchestrator {

void add_data_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* data = add_command(app, "data", "corpora", "data fetch gcide")->require_subcommand(1);
  auto* fetch = add_command(*data, "fetch", "get a corpus into the cache and print its folder", "data fetch gcide");
  fetch->add_option("NAME", arguments.corpus, "gcide or fashion-mnist")->required();
  fetch->callback([&] {
    action = [](const Arguments& a) {
      fmt::print("{}\n", fetch_corpus(a.corpus, corpus_cache()).folder.string());
      return static_cast<int>(kDone);
    };
  });
}

}  // namespace orchestrator
