#include "sweeps/skew_regression.h"

#include <cmath>

#include <Eigen/QR>

namespace sweeps {
namespace {

// Share of a column that must be new against the columns before it. Rounding leaves about 1e-13.
constexpr double kRankTolerance = 1e-7;

std::vector<int> fitted_coefficients(const SkewDesign& design) {
  return design.two_d ? std::vector<int>{0, 1, 2, 3, 4, 5} : std::vector<int>{0, 1, 3};
}

// Unweighted rows of the points, then of the prior.
Eigen::MatrixXd design_matrix(const SkewDesign& design, const std::vector<int>& coefficients, double k,
                              double centre_x, double centre_y) {
  const int n = design.num_points();
  Eigen::MatrixXd rows =
      Eigen::MatrixXd::Zero(n + static_cast<int>(design.prior.size()), design.num_parameters());
  const int num_coefficients = static_cast<int>(coefficients.size());
  for (int i = 0; i < n; ++i) {
    const Coefficients all = basis(k, design.x[i] - centre_x, design.y[i] - centre_y);
    for (int j = 0; j < num_coefficients; ++j) rows(i, j) = all[coefficients[j]];
    // Intercepts of the blocks sum to zero around c.
    for (int b = 1; b < design.num_blocks; ++b)
      rows(i, num_coefficients + b - 1) = design.block[i] == b ? 1 : design.block[i] == 0 ? -1 : 0;
  }
  for (std::size_t p = 0; p < design.prior.size(); ++p)
    for (int j = 0; j < num_coefficients; ++j)
      if (coefficients[j] == design.prior[p].coefficient) rows(n + static_cast<int>(p), j) = 1;
  return rows;
}

bool full_rank(const Eigen::MatrixXd& weighted) {
  if (weighted.rows() < weighted.cols()) return false;
  Eigen::MatrixXd scaled = weighted;
  for (int j = 0; j < scaled.cols(); ++j) {
    const double norm = scaled.col(j).norm();
    if (!(norm > 0)) return false;
    scaled.col(j) /= norm;
  }
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(scaled);
  const double last = std::abs(qr.matrixQR()(scaled.cols() - 1, scaled.cols() - 1));
  return last > kRankTolerance;
}

double& coefficient(SkewSurface& s, int index) {
  double* const fields[] = {&s.c, &s.b1, &s.b2, &s.hx, &s.hxy, &s.hy};
  return *fields[index];
}

}  // namespace

SkewSurface SkewRegression::surface_at(const Eigen::VectorXd& shift) const {
  SkewSurface moved = surface;
  for (std::size_t j = 0; j < coefficients.size(); ++j)
    coefficient(moved, coefficients[j]) += root.row(static_cast<int>(j)).dot(shift);
  return moved;
}

Eigen::Matrix<double, kNumCoefficients, kNumCoefficients> SkewRegression::unit_covariance() const {
  const Eigen::MatrixXd all = root * root.transpose();
  Eigen::Matrix<double, kNumCoefficients, kNumCoefficients> covariance;
  covariance.setZero();
  for (std::size_t i = 0; i < coefficients.size(); ++i)
    for (std::size_t j = 0; j < coefficients.size(); ++j)
      covariance(coefficients[i], coefficients[j]) = all(static_cast<int>(i), static_cast<int>(j));
  return covariance;
}

std::optional<SkewRegression> regress(const SkewDesign& design, double k, double centre_x, double centre_y,
                                      const Eigen::VectorXd& weights, double sigma) {
  SkewRegression out;
  out.coefficients = fitted_coefficients(design);
  const int n = design.num_points();
  const Eigen::MatrixXd rows = design_matrix(design, out.coefficients, k, centre_x, centre_y);
  const int p = static_cast<int>(rows.cols());

  Eigen::VectorXd scale(rows.rows()), target(rows.rows());
  scale.head(n) = weights.cwiseSqrt();
  target.head(n) = design.loss;
  for (std::size_t i = 0; i < design.prior.size(); ++i) {
    scale[n + static_cast<int>(i)] = sigma / design.prior[i].sd;
    target[n + static_cast<int>(i)] = design.prior[i].mean;
  }
  const Eigen::MatrixXd weighted = scale.asDiagonal() * rows;
  if (!full_rank(weighted)) return std::nullopt;

  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(weighted);
  const Eigen::VectorXd beta = qr.solve(Eigen::VectorXd(scale.cwiseProduct(target)));
  // Rows of R with a positive diagonal: its root is then a smooth function of the data.
  Eigen::MatrixXd r = qr.matrixQR().topRows(p).triangularView<Eigen::Upper>();
  for (int i = 0; i < p; ++i)
    if (r(i, i) < 0) r.row(i) *= -1;
  out.root = r.triangularView<Eigen::Upper>().solve(Eigen::MatrixXd::Identity(p, p));

  out.surface.k = k;
  for (std::size_t j = 0; j < out.coefficients.size(); ++j)
    coefficient(out.surface, out.coefficients[j]) = beta[static_cast<int>(j)];
  out.fitted = rows.topRows(n) * beta;
  const Eigen::VectorXd residual = scale.cwiseProduct(target - rows * beta);
  out.rss = residual.head(n).squaredNorm();
  out.rss_prior = residual.tail(residual.size() - n).squaredNorm();
  out.leverage = (rows.topRows(n) * out.root).rowwise().squaredNorm();
  out.parameters = out.leverage.dot(weights);
  return out;
}

}  // namespace sweeps
