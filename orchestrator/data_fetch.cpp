#include "orchestrator/data_fetch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

extern char** environ;

namespace orchestrator {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kShortestDocument = 40;  // bytes; shorter articles are cross references

constexpr std::array<std::string_view, 2> kFashionMnistFiles = {"train-images-idx3-ubyte.gz",
                                                                "t10k-images-idx3-ubyte.gz"};

/// "[1913 Webster]", "[WordNet 1.5 +PJC]": where an article comes from, not what it says.
bool is_source_tag(std::string_view line) {
  if (line.size() < 3 || line.front() != '[' || line.back() != ']') return false;
  if (line.substr(1, line.size() - 2).find_first_of("[]") != std::string_view::npos) return false;
  for (const std::string_view mark : {"Webster", "WordNet", "PJC", "Century", "1913", "1890", "Suppl."})
    if (line.find(mark) != std::string_view::npos) return true;
  return false;
}

std::string_view trimmed(std::string_view line) {
  const auto first = line.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

/// The line without source tags at its end.
std::string_view untagged(std::string_view line) {
  while (true) {
    const auto bracket = line.rfind('[');
    if (bracket == std::string_view::npos || !is_source_tag(line.substr(bracket))) return line;
    line = trimmed(line.substr(0, bracket));
    if (line.empty()) return line;
  }
}

/// "Abandon \A*ban"don\, n." -> "Abandon".
std::string_view headword(std::string_view first_line) {
  return trimmed(first_line.substr(0, first_line.find_first_of("\\,([{")));
}

/// Gathers the lines of one headword into paragraphs.
class Document {
 public:
  explicit Document(std::string_view word) : word_(word) {}
  std::string_view word() const { return word_; }

  void add_line(std::string_view line) {
    if (line.empty()) {
      end_paragraph();
      return;
    }
    line = untagged(line);
    if (line.empty()) return;
    if (in_paragraph_) text_ += ' ';
    text_ += line;
    in_paragraph_ = true;
  }
  void end_paragraph() {
    if (in_paragraph_) text_ += '\n';
    in_paragraph_ = false;
  }
  void append_to(std::string& corpus) {
    end_paragraph();
    if (text_.size() < kShortestDocument) return;
    corpus += text_;
    corpus += '\n';
  }

 private:
  std::string_view word_;
  std::string text_;
  bool in_paragraph_ = false;
};

/// Runs a program and returns its exit status; its output goes to ours. No shell, so no quoting.
int run_program(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);  // stdout stays data
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    throw std::runtime_error(
        fmt::format("cannot run {}: {}; `tuneonce data fetch` needs apt-get and dpkg-deb", arguments[0],
                    std::strerror(error)));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Downloads a package into the current folder. With root's package lists out of reach or absent, keeps lists
/// of its own under `work`.
void download_package(const std::string& package, const fs::path& work) {
  const fs::path before = fs::current_path();
  fs::current_path(work);
  // As root, apt would warn that its sandbox user cannot write here.
  const std::string sandbox = std::string("APT::Sandbox::User=") + (geteuid() == 0 ? "root" : "_apt");
  int status = run_program({"apt-get", "-qq", "-o", sandbox, "download", package});
  if (status != 0) {
    fs::create_directories("lists/partial");
    fs::create_directories("archives/partial");
    const std::vector<std::string> own = {"-qq", "-o", "Dir::State::Lists=" + (work / "lists").string(), "-o",
                                          "Dir::Cache=" + work.string()};
    const auto apt = [&](std::initializer_list<std::string> words) {
      std::vector<std::string> arguments = {"apt-get"};
      arguments.insert(arguments.end(), own.begin(), own.end());
      arguments.insert(arguments.end(), words.begin(), words.end());
      return run_program(arguments);
    };
    status = apt({"update"});
    if (status == 0) status = apt({"download", package});
  }
  fs::current_path(before);
  if (status != 0)
    throw std::runtime_error(fmt::format(
        "apt-get could not download {} (exit {}); is the network up, and is this Debian or Ubuntu?", package,
        status));
}

fs::path find_package(const fs::path& work, const std::string& package) {
  for (const auto& entry : fs::directory_iterator(work)) {
    const auto file = entry.path().filename().string();
    if (file.starts_with(package + "_") && file.ends_with(".deb")) return entry.path();
  }
  throw std::runtime_error(fmt::format("apt-get left no {}_*.deb in {}", package, work.string()));
}

std::string read_gzip(const fs::path& file) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> input(gzopen(file.c_str(), "rb"), gzclose);
  if (!input) throw std::runtime_error(fmt::format("cannot open {}", file.string()));
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (int read = 0; (read = gzread(input.get(), buffer.data(), buffer.size())) != 0;) {
    if (read < 0) throw std::runtime_error(fmt::format("{} is not a sound gzip file", file.string()));
    text.append(buffer.data(), static_cast<std::size_t>(read));
  }
  return text;
}

/// Whole or not at all: written beside, then renamed.
void write_file(const fs::path& file, const std::string& text) {
  const fs::path partial = file.string() + ".partial";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> output(std::fopen(partial.c_str(), "wb"),
                                                               std::fclose);
  if (!output || std::fwrite(text.data(), 1, text.size(), output.get()) != text.size() ||
      std::fflush(output.get()) != 0 || fsync(fileno(output.get())) != 0)
    throw std::runtime_error(fmt::format("cannot write {}: {}", partial.string(), std::strerror(errno)));
  fs::rename(partial, file);
}

void install_gcide(const fs::path& unpacked, const fs::path& folder) {
  write_file(folder / "gcide.txt", clean_gcide(read_gzip(unpacked / "usr/share/dictd/gcide.dict.dz")));
}

void install_fashion_mnist(const fs::path& unpacked, const fs::path& folder) {
  for (const auto file : kFashionMnistFiles)
    fs::rename(unpacked / "usr/share/datasets/fashion-mnist" / file, folder / file);
}

/// A corpus and the Debian package that carries it.
struct Packaged {
  std::string_view name;
  std::string package;
  std::vector<std::string_view> files;  // of its folder, once it is there
  void (*install)(const fs::path& unpacked,
                  const fs::path& folder);  // makes each of them, whole or not at all
};

const std::vector<Packaged>& known_corpora() {
  static const std::vector<Packaged> corpora = {{"gcide", "dict-gcide", {"gcide.txt"}, install_gcide},
                                                {"fashion-mnist",
                                                 "dataset-fashion-mnist",
                                                 {kFashionMnistFiles.begin(), kFashionMnistFiles.end()},
                                                 install_fashion_mnist}};
  return corpora;
}

const Packaged& find_corpus(std::string_view name) {
  std::vector<std::string_view> known;
  for (const auto& corpus : known_corpora()) {
    if (corpus.name == name) return corpus;
    known.push_back(corpus.name);
  }
  throw std::invalid_argument(fmt::format("unknown corpus \"{}\"; known: {}", name, fmt::join(known, ", ")));
}

void fetch(const Packaged& corpus, const fs::path& folder) {
  const fs::path work = folder / "download";
  fs::create_directories(work);
  download_package(corpus.package, work);
  const auto package = find_package(work, corpus.package);
  if (const int status = run_program({"dpkg-deb", "-x", package.string(), work.string()}); status != 0)
    throw std::runtime_error(fmt::format("dpkg-deb could not unpack {} (exit {})", package.string(), status));
  corpus.install(work, folder);
  fs::remove_all(work);
}

}  // namespace

std::string clean_gcide(std::string_view dictionary) {
  std::string corpus;
  corpus.reserve(dictionary.size());
  Document document("");
  bool skipping =
      true;  // until the first real article, "A \\A\\ ...": the file begins with its own description
  while (!dictionary.empty()) {
    const auto end = dictionary.find('\n');
    const auto line = dictionary.substr(0, end);
    dictionary.remove_prefix(end == std::string_view::npos ? dictionary.size() : end + 1);
    const bool starts_article = !line.empty() && line.front() != ' ' && line.front() != '\t';
    if (starts_article) {
      skipping = skipping && line.find('\\') == std::string_view::npos;
      const auto word = headword(line);
      if (word == document.word()) {
        document.end_paragraph();
      } else {
        document.append_to(corpus);
        document = Document(word);
      }
    }
    if (!skipping) document.add_line(trimmed(line));
  }
  document.append_to(corpus);
  return corpus;
}

fs::path corpus_cache() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return fs::path(cache) / "tuneonce";
  if (const char* home = std::getenv("HOME"); home && *home) return fs::path(home) / ".cache" / "tuneonce";
  throw std::runtime_error("neither XDG_CACHE_HOME nor HOME is set; set one of them");
}

Corpus fetch_corpus(std::string_view name, const fs::path& cache) {
  const Packaged& corpus = find_corpus(name);
  const fs::path folder = cache / name;
  const auto exists = [&](std::string_view file) { return fs::exists(folder / file); };
  const bool there = std::all_of(corpus.files.begin(), corpus.files.end(), exists);
  if (!there) fetch(corpus, folder);
  std::uintmax_t bytes = 0;
  for (const auto file : corpus.files) bytes += fs::file_size(folder / file);
  return {folder, bytes, !there};
}

}  // namespace orchestrator
