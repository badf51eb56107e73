// Store::put_decisions: what the pipeline decided, as rows for people.
#include <cmath>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "db/sqlite.h"
#include "db/store.h"

namespace db {
namespace {

/// Binds values one after the other; a number that is not finite is NULL.
class Row {
 public:
  Row(SQLite::Database& database, const std::string& insert) : statement_(database, insert) {}
  Row& add(double value) {
    ++index_;
    if (std::isfinite(value)) statement_.bind(index_, value);
    return *this;
  }
  Row& add(const std::optional<double>& value) { return value ? add(*value) : (++index_, *this); }
  Row& add(std::int64_t value) {
    statement_.bind(++index_, value);
    return *this;
  }
  Row& add(int value) { return add(static_cast<std::int64_t>(value)); }
  Row& add(bool value) { return add(static_cast<std::int64_t>(value)); }
  Row& add(std::string_view value) {
    statement_.bind(++index_, std::string(value));
    return *this;
  }
  void insert() { statement_.exec(); }

 private:
  SQLite::Statement statement_;
  int index_ = 0;
};

void put_optimum(SQLite::Database& database, std::int64_t study_id, const std::string& model, double init_std,
                 std::int64_t steps, const sweeps::Optimum& fit) {
  Row(database, "INSERT INTO optimum VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
      .add(std::string_view(model))
      .add(study_id)
      .add(std::exp2(fit.lr.estimate))
      .add(std::exp2(fit.lr.ci.lo))
      .add(std::exp2(fit.lr.ci.hi))
      .add(std::exp2(fit.wd.estimate))
      .add(std::exp2(fit.wd.ci.lo))
      .add(std::exp2(fit.wd.ci.hi))
      .add(fit.wd_fitted)
      .add(fit.bracketed())
      .add(init_std)
      .add(fit.best_loss)
      .add(fit.sigma)
      .add(fit.k)
      .add(fit.hx)
      .add(fit.hxy)
      .add(fit.hy)
      .add(fit.num_points)
      .add(fit.num_diverged)
      .add(std::string_view(sweeps::describe(fit, model, steps)))
      .add(std::string_view(now_utc()))
      .insert();
}

void put_target(SQLite::Database& database, std::int64_t study_id, const sweeps::TargetAnalysis& target) {
  const auto& config = target.config;
  Row(database, "INSERT INTO target VALUES (?,?,?,?,?,?,?,?,?,?,?,?)")
      .add(std::string_view(config.target))
      .add(study_id)
      .add(std::string_view(config.moe))
      .add(config.base.lr)
      .add(config.base.wd)
      .add(config.base.init_std)
      .add(config.route_scale)
      .add(config.branch_scale)
      .add(config.sigma0_ratio)
      .add(target.transferred ? target.transferred->loss : std::nullopt)
      .add(target.baseline ? target.baseline->loss : std::nullopt)
      .add(std::string_view(now_utc()))
      .insert();
}

void put_groups(SQLite::Database& database, const sweeps::TargetConfig& config) {
  int position = 0;
  for (const auto& row : config.rows)
    Row(database, "INSERT INTO target_group VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
        .add(std::string_view(config.target))
        .add(++position)
        .add(models::name(row.group))
        .add(row.factor.init_std)
        .add(row.factor.lr)
        .add(row.factor.wd)
        .add(row.factor.eps)
        .add(row.factor.one_minus_beta)
        .add(row.factor.forward)
        .add(row.init_std)
        .add(row.lr)
        .add(row.wd)
        .add(row.eps)
        .add(row.beta1)
        .add(row.beta2)
        .add(row.decays)
        .add(std::string_view(row.source))
        .insert();
}

void put_drift(SQLite::Database& database, const std::string& target, const sweeps::DriftReport& drift) {
  Row(database, "INSERT INTO drift_check VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")
      .add(std::string_view(target))
      .add(static_cast<int>(drift.verdict))
      .add(std::string_view(drift.reason))
      .add(drift.num_points)
      .add(drift.num_diverged)
      .add(drift.tolerance)
      .add(drift.sigma)
      .add(drift.lr.value)
      .add(drift.lr.ci.lo)
      .add(drift.lr.ci.hi)
      .add(drift.wd.value)
      .add(drift.wd.ci.lo)
      .add(drift.wd.ci.hi)
      .add(drift.tau.value)
      .add(drift.regret)
      .add(drift.regret_debiased)
      .add(drift.regret_upper)
      .add(drift.probability_within)
      .add(drift.gradient_p)
      .add(drift.location_equivalent)
      .add(drift.lr_factor)
      .add(drift.wd_factor)
      .add(drift.more_runs)
      .add(std::string_view(now_utc()))
      .insert();
}

void put_censored(SQLite::Database& database, const sweeps::Censoring& censoring) {
  Row(database, "INSERT INTO censored SELECT id, ?, ?, ? FROM trial WHERE key = ?")
      .add(censoring.step)
      .add(std::string_view(censoring.reason))
      .add(std::string_view(now_utc()))
      .add(std::string_view(censoring.trial))
      .insert();
}

/// Those that have ended and that nobody asks for; what later stages will ask for is not known before they
/// begin.
void put_dropped(SQLite::Database& database, const sweeps::Analysis& analysis) {
  SQLite::Statement ended(database,
                          fmt::format("SELECT id, key, role FROM trial WHERE state NOT IN ({}, {}, {})",
                                      static_cast<int>(sweeps::TrialState::waiting),
                                      static_cast<int>(sweeps::TrialState::running),
                                      static_cast<int>(sweeps::TrialState::dropped)));
  while (ended.executeStep()) {
    const auto role = static_cast<sweeps::TrialRole>(ended.getColumn(2).getInt());
    if (!analysis.missing.empty() && sweeps::stage_of(role) > analysis.stage) continue;
    if (!analysis.asked.contains(ended.getColumn(1).getString()))
      Row(database, "INSERT INTO dropped VALUES (?)").add(ended.getColumn(0).getInt64()).insert();
  }
}

}  // namespace

void Store::put_decisions(std::int64_t study_id, const sweeps::Study& study,
                          const sweeps::Analysis& analysis) {
  write([&] {
    for (const char* table : {"drift_check", "target_group", "target", "optimum", "censored", "dropped"})
      database_->exec(std::string("DELETE FROM ") + table);
    for (const auto& censoring : analysis.censored) put_censored(*database_, censoring);
    put_dropped(*database_, analysis);
    if (analysis.fit)
      if (const auto* fit = std::get_if<sweeps::Optimum>(&*analysis.fit))
        put_optimum(*database_, study_id, "proxy", analysis.init_std, study.proxy.steps, *fit);
    for (const auto& horizon : analysis.horizons)
      if (const auto* fit = std::get_if<sweeps::Optimum>(&horizon.fit); fit && horizon.fraction < 1)
        put_optimum(*database_, study_id, sweeps::model_name(horizon), analysis.init_std, horizon.steps,
                    *fit);
    for (const auto& target : analysis.targets) {
      put_target(*database_, study_id, target);
      put_groups(*database_, target.config);
      if (!target.drift) continue;
      put_drift(*database_, target.spec.name, *target.drift);
      if (target.drift->fit)
        put_optimum(*database_, study_id, target.spec.name, target.config.base.init_std,
                    target.config.run.steps, *target.drift->fit);
    }
  });
}

}  // namespace db
