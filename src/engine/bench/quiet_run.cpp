#include "engine/bench/quiet_run.h"

#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "data/tokenize.h"

namespace sheaf {

namespace fs = std::filesystem;

QuietRun run_quietly(const Json& run, const TrainFlags& flags, const std::atomic<bool>& stop) {
  SHEAF_CHECK(flags.watch, "a run that nobody watches");
  const auto begin = std::chrono::steady_clock::now();
  QuietRun out;
  const auto failed = [&](const char* what) {
    out.end = RunEnd::failed, out.error = what;
    for (char& c : out.error)
      if (c == '\n') c = ' ';
  };
  try {
    const LoadedConfig config = parse_config(run.dump(), "the run", {}, 0);
    if (train(config, flags, Launch{}, stop) == TrainEnd::interrupted) out.end = RunEnd::interrupted;
  } catch (const Interrupted&) {
    out.end = RunEnd::interrupted;
  } catch (const UserError& error) {
    failed(error.what());
  } catch (const std::exception& error) {
    const std::string what = error.what();    // an error of c10 has a stack of addresses below its first line
    failed(("internal error: " + what.substr(0, what.find('\n'))).c_str());
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return out;
}

const char* name(RunEnd end) { return end == RunEnd::finished ? "finished" : end == RunEnd::interrupted ? "interrupted" : "failed"; }

std::string fresh_folder(const std::string& given, const std::string& name, const std::string& mark) {
  std::error_code ignored;
  if (!given.empty()) {
    if (fs::exists(fs::path(given) / mark, ignored))
      user_error("{}: already holds a benchmark (it has {}); name another with --output FOLDER", given, mark);
    return given;
  }
  for (int n = 1;; ++n)
    if (std::string folder = fmt::format("out/{}-{}", name, n); !fs::exists(folder, ignored)) return folder;
}

TemporaryFolder::TemporaryFolder(std::string path) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) user_error("{}: cannot be made: {}", path_, error.message());
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  const fs::path parent = fs::path(path_).parent_path();
  if (fs::is_empty(parent, ignored) && !ignored) fs::remove(parent, ignored);    // nothing was done
}

}    // namespace sheaf
