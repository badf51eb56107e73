#include "worker/protocol.h"

#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>

namespace worker {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "frames hold little-endian numbers as they lie");

// A message nests a few levels; a frame that nests deeper is refused before the (recursive) parser sees it.
constexpr int kMaxDepth = 16;

// --- enums as their names ---

template <class E>
constexpr E kLast = E{};  // the last enumerator
template <>
constexpr auto kLast<models::ModelFamily> = models::ModelFamily::command;
template <>
constexpr auto kLast<models::Parameterization> = models::Parameterization::u_mup;
template <>
constexpr auto kLast<models::WdWidth> = models::WdWidth::independent;
template <>
constexpr auto kLast<models::HeadRule> = models::HeadRule::complete_dp;
template <>
constexpr auto kLast<sweeps::TrialRole> = sweeps::TrialRole::check;
template <>
constexpr auto kLast<sweeps::ScheduleKind> = sweeps::ScheduleKind::linear;
template <>
constexpr auto kLast<sweeps::DataSource> = sweeps::DataSource::command;
template <>
constexpr auto kLast<sweeps::Precision> = sweeps::Precision::bfloat16;
template <>
constexpr auto kLast<sweeps::Balancing> = sweeps::Balancing::none;
template <>
constexpr auto kLast<sweeps::FailureClass> = sweeps::FailureClass::cancelled;

// --- fields of every type, once for reading and writing; `a` is a Writer or a Reader ---

void fields(auto& a, models::ModelShape& x) {
  a("family", x.family);
  a("width", x.width);
  a("depth", x.depth);
  a("head_size", x.head_size);
  a("context", x.context);
  a("vocab", x.vocab);
  a("ffn_width", x.ffn_width);
  a("num_experts", x.num_experts);
  a("num_active", x.num_active);
  a("num_shared", x.num_shared);
  a("num_groups", x.num_groups);
  a("expert_width", x.expert_width);
  if (!x.is_diffusion()) return;
  a("image_size", x.image_size);
  a("channels", x.channels);
  a("patch", x.patch);
}
void fields(auto& a, models::RunShape& x) {
  a("shape", x.shape);
  a("batch", x.batch);
  a("steps", x.steps);
}
void fields(auto& a, models::RuleOptions& x) {
  a("rule", x.rule);
  a("depth_exponent", x.depth_exponent);
  a("duration_exponent", x.duration_exponent);
  a("wd_width", x.wd_width);
  a("head", x.head);
  if (models::uses(x.rule).mssp_regime) a("mssp_regime", x.mssp_regime);
}
void fields(auto& a, sweeps::Hyperparameters& x) {
  a("lr", x.lr);
  a("wd", x.wd);
  a("init_std", x.init_std);
  a("beta1", x.beta1);
  a("beta2", x.beta2);
  a("eps", x.eps);
}
void fields(auto& a, sweeps::Schedule& x) {
  a("kind", x.kind);
  a("warmup", x.warmup);
  a("decay", x.decay);
}
void fields(auto& a, sweeps::DataSpec& x) {
  a("source", x.source);
  a("path", x.path);
  a("validation_path", x.validation_path);
  a("holdout", x.holdout);
  a("teacher_seed", x.teacher_seed);
  a("fingerprint", x.fingerprint);
}
void fields(auto& a, sweeps::EvalSpec& x) {
  a("tokens", x.tokens);
  a("every", x.every);
}
void fields(auto& a, sweeps::CommandSpec& x) {
  a("words", x.words);
  a("folder", x.folder);
  a("metric", x.metric);
  a("metric_regex", x.metric_regex);
  a("timeout_seconds", x.timeout_seconds);
}
void fields(auto& a, sweeps::TrialSpec& x) {
  a("name", x.name);
  a("role", x.role);
  a("target", x.target);
  a("run", x.run);
  a("proxy", x.proxy);
  a("rule", x.rule);
  a("base", x.base);
  a("schedule", x.schedule);
  a("clip", x.clip);
  a("precision", x.precision);
  a("balancing", x.balancing);
  a("seed", x.seed);
  a("data", x.data);
  a("eval", x.eval);
  a.optional("branches", x.branches);
  if (x.run.shape.family == models::ModelFamily::command) a("command", x.command);
}
void fields(auto& a, sweeps::Finished& x) {
  a("loss", x.loss);
  a("floor", x.floor);
  a("steps", x.steps);
  a("seconds", x.seconds);
}
void fields(auto& a, sweeps::Diverged& x) {
  a("step", x.step);
  a("seconds", x.seconds);
}
void fields(auto& a, sweeps::Failed& x) {
  a("failure", x.failure);
  a("message", x.message);
}
void fields(auto& a, Hello& x) {
  a("protocol", x.protocol);
  a("build", x.build);
  a("device", x.device);
  a("device_name", x.device_name);
  a("memory_bytes", x.memory_bytes);
  a("threads", x.threads);
  a("slots", x.slots);
}
void fields(auto& a, Inspected& x) {
  a("fingerprint", x.fingerprint);
  a("train_tokens", x.train_tokens);
  a("holdout_tokens", x.holdout_tokens);
  a("description", x.description);
}
void fields(auto& a, Measured& x) {
  a("seconds_per_step", x.seconds_per_step);
  a("seconds_per_eval", x.seconds_per_eval);
}
void fields(auto& a, ProbedSeries& x) {
  a("layer", x.layer);
  a("quantity", x.quantity);
  a("values", x.values);
}
void fields(auto& a, Probed& x) { a("series", x.series); }
void fields(auto& a, Refused& x) {
  a("failure", x.failure);
  a("message", x.message);
}
void fields(auto& a, Started& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("first_step", x.first_step);
}
void fields(auto& a, Progress& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("step", x.step);
  a("seconds", x.seconds);
}
void fields(auto& a, Curve& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("metric", x.metric);
  a("steps", x.steps);
  a("values", x.values);
}
void fields(auto& a, Checkpointed& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("step", x.step);
  a("file", x.file);
  a("checksum", x.checksum);
}
void fields(auto& a, Branch& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("fraction", x.fraction);
  a("steps", x.steps);
  a("loss", x.loss);
}
void fields(auto& a, sweeps::SampleSheet& x) {
  a("width", x.width);
  a("height", x.height);
  a("channels", x.channels);
  a("drawn", x.drawn);
  a("real", x.real);
}
void fields(auto& a, Sampled& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("sheet", x.sheet);
}
void fields(auto& a, Ended& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("outcome", x.outcome);
}
void fields(auto& a, Assignment& x) {
  a("trial", x.trial);
  a("attempt", x.attempt);
  a("spec", x.spec);
  a("checkpoint", x.checkpoint);
  a("checkpoint_seconds", x.checkpoint_seconds);
}
void fields(auto& a, Assign& x) { a("trials", x.trials); }
void fields(auto& a, Cancel& x) { a("trial", x.trial); }
void fields(auto&, Drain&) {}
void fields(auto& a, Inspect& x) {
  a("data", x.data);
  a("context", x.context);
  a("vocab", x.vocab);
  a("eval_tokens", x.eval_tokens);
  if (!sweeps::has_images(x.data.source)) return;
  a("image_size", x.image_size);
  a("channels", x.channels);
}
void fields(auto& a, Measure& x) {
  a("spec", x.spec);
  a("steps", x.steps);
}
void fields(auto& a, Probe& x) {
  a("spec", x.spec);
  a("steps", x.steps);
  a("layers", x.layers);
}

// --- the tag of every alternative of a variant ---

constexpr const char* tag(const Hello*) { return "hello"; }
constexpr const char* tag(const Inspected*) { return "inspected"; }
constexpr const char* tag(const Measured*) { return "measured"; }
constexpr const char* tag(const Probed*) { return "probed"; }
constexpr const char* tag(const Refused*) { return "refused"; }
constexpr const char* tag(const Started*) { return "started"; }
constexpr const char* tag(const Progress*) { return "progress"; }
constexpr const char* tag(const Curve*) { return "curve"; }
constexpr const char* tag(const Checkpointed*) { return "checkpointed"; }
constexpr const char* tag(const Branch*) { return "branch"; }
constexpr const char* tag(const Sampled*) { return "sampled"; }
constexpr const char* tag(const Ended*) { return "ended"; }
constexpr const char* tag(const Assign*) { return "assign"; }
constexpr const char* tag(const Cancel*) { return "cancel"; }
constexpr const char* tag(const Drain*) { return "drain"; }
constexpr const char* tag(const Inspect*) { return "inspect"; }
constexpr const char* tag(const Measure*) { return "measure"; }
constexpr const char* tag(const Probe*) { return "probe"; }
constexpr const char* tag(const sweeps::Finished*) { return "finished"; }
constexpr const char* tag(const sweeps::Diverged*) { return "diverged"; }
constexpr const char* tag(const sweeps::Failed*) { return "failed"; }

template <class T>
struct IsVariant : std::false_type {};
template <class... Ts>
struct IsVariant<std::variant<Ts...>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

// --- writing ---

enum class Arrays { bytes, plain };  // curves: byte arrays in a frame, plain arrays in a JSON line

struct Writer {
  Arrays arrays = Arrays::bytes;
  json object = json::object();

  template <class T>
  void operator()(const char* field, const T& value) {
    object[field] = written(value);
  }

  /// A list that is left out when it is empty: specs of before it was known read the same.
  void optional(const char* field, const std::vector<double>& values) {
    if (!values.empty()) object[field] = values;
  }

  template <class T>
  json written(const T& value) const {
    if constexpr (std::is_enum_v<T>) {
      return std::string(name(value));
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (IsVariant<T>::value) {
      return std::visit([this](const auto& x) { return tagged(x); }, value);
    } else {
      return untagged(value);
    }
  }
  json written(const std::optional<double>& value) const { return value ? json(*value) : json(nullptr); }
  template <class T>
  json written(const std::vector<T>& values) const {
    if constexpr (std::is_arithmetic_v<T>) {
      if (arrays == Arrays::plain) return values;
      std::vector<std::uint8_t> bytes(values.size() * sizeof(T));
      if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
      return json::binary(std::move(bytes));
    } else {
      json array = json::array();
      for (const T& value : values) array.push_back(written(value));
      return array;
    }
  }
  template <class T>
  json untagged(T value) const {  // a copy: fields() is shared with the Reader, which fills in
    Writer inner{arrays};
    fields(inner, value);
    return std::move(inner.object);
  }
  template <class T>
  json tagged(const T& value) const {
    json object_with_tag = untagged(value);
    object_with_tag["type"] = tag(&value);
    return object_with_tag;
  }
};

// --- reading ---

/// Reads one object. `where` is the path to it, for messages: "assign.trials[0].spec".
class Reader {
 public:
  Reader(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("is not an object");
  }

  template <class T>
  void operator()(const char* field, T& value) {
    const auto found = object_.find(field);
    if (found == object_.end()) fail(std::string("has no field '") + field + "'");
    ++num_read_;
    read(*found, where_ + "." + field, value);
  }
  void optional(const char* field, std::vector<double>& values) {
    values.clear();
    const auto found = object_.find(field);
    if (found == object_.end()) return;
    ++num_read_;
    if (!found->is_array()) fail(where_ + "." + field, "is not an array");
    for (const json& item : *found) read(item, where_ + "." + field, values.emplace_back());
  }
  /// Fields that nobody asked for are a misspelling or another version. `tags`: 1 when a "type" was read.
  void refuse_unknown_fields(std::size_t tags) const {
    if (object_.size() != num_read_ + tags) fail("has a field that this version does not know");
  }

  template <class T>
  static void read_object(const json& from, const std::string& where, T& value, std::size_t tags = 0) {
    Reader reader(from, where);
    fields(reader, value);
    reader.refuse_unknown_fields(tags);
  }

  template <class Variant>
  static void read_variant(const json& from, const std::string& where, Variant& value) {
    if (!from.is_object()) throw ProtocolError(where + " is not an object");
    const auto type = from.find("type");
    if (type == from.end() || !type->is_string()) throw ProtocolError(where + " has no type");
    const auto& wanted = type->template get_ref<const std::string&>();
    if (!read_alternative(from, where, wanted, value,
                          std::make_index_sequence<std::variant_size_v<Variant>>{})) {
      throw ProtocolError(where + " is of unknown type '" + wanted.substr(0, 32) + "'");
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw ProtocolError(where_ + " " + what); }
  [[noreturn]] static void fail(const std::string& where, const char* what) {
    throw ProtocolError(where + " " + what);
  }

  template <class Variant, std::size_t... I>
  static bool read_alternative(const json& from, const std::string& where, const std::string& wanted,
                               Variant& value, std::index_sequence<I...>) {
    const auto attempt = [&]<class T>(T alternative) {
      if (wanted != tag(&alternative)) return false;
      read_object(from, where, alternative, 1);
      value = std::move(alternative);
      return true;
    };
    return (attempt(std::variant_alternative_t<I, Variant>{}) || ...);
  }

  template <class T>
  static void read(const json& from, const std::string& where, T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      if (!from.is_boolean()) fail(where, "is not true or false");
      value = from.template get<bool>();
    } else if constexpr (std::is_enum_v<T>) {
      read_enum(from, where, value);
    } else if constexpr (std::is_integral_v<T>) {
      read_integer(from, where, value);
    } else if constexpr (std::is_same_v<T, double>) {
      if (!from.is_number()) fail(where, "is not a number");
      value = from.get<double>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!from.is_string()) fail(where, "is not text");
      value = from.get<std::string>();
    } else if constexpr (IsVariant<T>::value) {
      read_variant(from, where, value);
    } else if constexpr (IsVector<T>::value) {
      read_vector(from, where, value);
    } else {
      read_object(from, where, value);
    }
  }
  static void read(const json& from, const std::string& where, std::optional<double>& value) {
    value.reset();
    if (!from.is_null()) read(from, where, value.emplace());
  }
  template <class T>
  static void read_integer(const json& from, const std::string& where, T& value) {
    if (!from.is_number_integer()) fail(where, "is not a whole number");
    const bool fits = from.is_number_unsigned() ? std::in_range<T>(from.get<std::uint64_t>())
                                                : std::in_range<T>(from.get<std::int64_t>());
    if (!fits) fail(where, "is out of range");
    value = from.get<T>();
  }
  template <class E>
  static void read_enum(const json& from, const std::string& where, E& value) {
    if (!from.is_string()) fail(where, "is not a name");
    for (int i = 0; i <= static_cast<int>(kLast<E>); ++i) {
      value = static_cast<E>(i);
      if (from.get_ref<const std::string&>() == name(value)) return;
    }
    fail(where, "is not a known name");
  }
  template <class T>
  static void read_vector(const json& from, const std::string& where, std::vector<T>& values) {
    if constexpr (std::is_arithmetic_v<T>) {
      if (!from.is_binary()) fail(where, "is not a byte array");
      const auto& bytes = from.get_binary();
      if (bytes.size() % sizeof(T) != 0) fail(where, "is not a whole number of values");
      values.resize(bytes.size() / sizeof(T));
      if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    } else {
      if (!from.is_array()) fail(where, "is not an array");
      values.clear();
      for (const json& item : from) {
        read(item, where + "[" + std::to_string(values.size()) + "]", values.emplace_back());
      }
    }
  }

  const json& object_;
  std::string where_;
  std::size_t num_read_ = 0;
};

/// Says no to a payload that nests deeper than any message does; keeps nothing.
struct DepthGuard : nlohmann::json_sax<json> {
  int depth = 0;
  std::string error;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t, const std::string&, const json::exception& cause) override {
    error = cause.what();
    return false;
  }

 private:
  bool enter() {
    if (++depth <= kMaxDepth) return true;
    error = "nested too deeply";
    return false;
  }
  bool leave() {
    --depth;
    return true;
  }
};

/// Walks over the heads of all items and says no to one of indefinite length: encode() makes none, and the
/// parser calls itself for the pieces of such a text or byte string, however deep they nest. What texts and
/// byte strings hold is skipped.
void refuse_indefinite_lengths(std::span<const std::uint8_t> payload) {
  constexpr unsigned kIndefinite = 31, kBytes = 2, kText = 3;
  while (!payload.empty()) {
    const unsigned major = payload[0] >> 5, info = payload[0] & 31;
    payload = payload.subspan(1);
    if (info == kIndefinite) throw ProtocolError("frame: an item of indefinite length");
    const std::size_t num_bytes = info < 24 ? 0 : std::size_t{1} << (info - 24);  // of the argument
    if (num_bytes > 8 || num_bytes > payload.size()) throw ProtocolError("frame: no whole item");
    std::uint64_t argument = info < 24 ? info : 0;
    for (const auto byte : payload.first(num_bytes)) argument = argument << 8 | byte;
    payload = payload.subspan(num_bytes);
    if (major != kBytes && major != kText) continue;
    if (argument > payload.size()) throw ProtocolError("frame: no whole item");
    payload = payload.subspan(argument);
  }
}

json parse_cbor(std::span<const std::uint8_t> payload) {
  if (payload.size() > kMaxFrameBytes) throw ProtocolError("frame: longer than 64 MiB");
  refuse_indefinite_lengths(payload);
  DepthGuard guard;
  try {
    if (!json::sax_parse(payload.begin(), payload.end(), &guard, json::input_format_t::cbor)) {
      throw ProtocolError("frame: " + guard.error);
    }
    return json::from_cbor(payload.begin(), payload.end());
  } catch (const json::exception& cause) {
    throw ProtocolError(std::string("frame: ") + cause.what());
  }
}

std::vector<std::uint8_t> framed(const json& message) {
  std::vector<std::uint8_t> frame(4);
  json::to_cbor(message, frame);
  const std::size_t length = frame.size() - 4;
  if (length > kMaxFrameBytes) throw ProtocolError("message: longer than 64 MiB");
  for (std::size_t i = 0; i < 4; ++i) frame[i] = static_cast<std::uint8_t>(length >> (8 * i));
  return frame;
}

/// The hello of another protocol version, read as far as every version must keep it: its version and build.
std::optional<Hello> foreign_hello(const json& message) {
  if (!message.is_object() || message.value("type", json()) != "hello") return std::nullopt;
  const json protocol = message.value("protocol", json());
  if (!protocol.is_number_integer() || protocol == kProtocolVersion) return std::nullopt;
  Hello hello;
  if (!std::in_range<int>(protocol.get<std::int64_t>())) return std::nullopt;
  hello.protocol = protocol.get<int>();
  if (const json build = message.value("build", json()); build.is_string()) hello.build = build;
  return hello;
}

}  // namespace

std::vector<std::uint8_t> encode(const WorkerMessage& message) { return framed(Writer{}.written(message)); }
std::vector<std::uint8_t> encode(const OrchestratorMessage& message) {
  return framed(Writer{}.written(message));
}

WorkerMessage decode_worker_message(std::span<const std::uint8_t> payload) {
  const json parsed = parse_cbor(payload);
  if (auto hello = foreign_hello(parsed)) return *hello;
  WorkerMessage message;
  Reader::read_variant(parsed, "message", message);
  if (const auto* curve = std::get_if<Curve>(&message);
      curve && curve->steps.size() != curve->values.size()) {
    throw ProtocolError("message.steps and message.values differ in length");
  }
  if (const auto* sampled = std::get_if<Sampled>(&message); sampled && !is_sound(sampled->sheet)) {
    throw ProtocolError("message.sheet holds no whole pictures of its size");
  }
  return message;
}

OrchestratorMessage decode_orchestrator_message(std::span<const std::uint8_t> payload) {
  OrchestratorMessage message;
  Reader::read_variant(parse_cbor(payload), "message", message);
  if (const auto* assign = std::get_if<Assign>(&message); assign && assign->trials.empty()) {
    throw ProtocolError("message.trials is empty");
  }
  return message;
}

std::size_t payload_length(std::span<const std::uint8_t, 4> length) {
  const std::size_t bytes =
      length[0] | std::size_t{length[1]} << 8 | std::size_t{length[2]} << 16 | std::size_t{length[3]} << 24;
  if (bytes > kMaxFrameBytes) {
    throw ProtocolError("frame: a length of " + std::to_string(bytes) +
                        " bytes is above the limit of 64 MiB");
  }
  return bytes;
}

json to_json(const sweeps::TrialSpec& spec) { return Writer{}.written(spec); }

sweeps::TrialSpec spec_from_json(const json& from) {
  sweeps::TrialSpec spec;
  Reader::read_object(from, "spec", spec);
  return spec;
}

json to_json(const WorkerMessage& message) { return Writer{Arrays::plain}.written(message); }

}  // namespace worker
