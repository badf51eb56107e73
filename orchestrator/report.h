#pragma once

#include <map>
#include <string>
#include <vector>

#include "sweeps/analysis.h"
#include "sweeps/sample_sheet.h"

namespace orchestrator {

/// One metric of one trial: values[i] at steps[i].
struct CurveSeries {
  std::string metric;  // "train_loss", "eval_loss"
  std::vector<std::int64_t> steps;
  std::vector<double> values;
};
using Curves = std::map<sweeps::TrialKey, std::vector<CurveSeries>>;
using Samples = std::map<sweeps::TrialKey, sweeps::SampleSheet>;

/// The report as one self-contained HTML page: opens offline, no script from elsewhere. Pure.
std::string render_report(const sweeps::Study& study, const sweeps::Analysis& analysis, const Curves& curves,
                          const Samples& samples = {});

}  // namespace orchestrator
