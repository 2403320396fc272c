// Operators that run a plan: (Tensor x, Tensor weights, int[] plan) -> Tensor, each with a profile of itself.
//
// One file is one operator. It holds a struct of what differs from the others, and registers it:
//
//   struct NAME {
//     using Plan = ...;                          // has `weights`: how many words are packed
//     static constexpr int kFields, kTimed;      // numbers a row of the plan; columns of the profile
//     static Plan read(const std::vector<int64_t>& numbers);             // raises where they make no sense
//     static MapSizes sizes(const Tensor& x, const Plan& plan);          // of the result; checks x
//     static void run(const Call<Plan>& call);
//   };
//   ELASTIC_PLANNED_OPERATOR("name", NAME)
#pragma once
#include <ATen/ops/zeros.h>

#include <array>
#include <vector>

#include "common/operators.h"
#include "inference/kernels.h"

namespace elastic {

using at::Tensor;
using MapSizes = std::array<c10::SymInt, 4>;

template <class Plan>
struct Call {
  const InferenceKernels& kernels;
  const Plan& plan;
  int64_t images;
  int height, width;     // of the input
  const Element* input;  // channels last, contiguous, as the output
  const float* weights;
  Element* output;
  int64_t in_image, out_image;  // numbers from one image to the next
  double* seconds;              // (rows of the plan, kTimed), what one thread spent where; null where not asked for
};

template <class Operator>
struct Planned {
  using Plan = typename Operator::Plan;

  static Tensor output(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
    return checked(x, weights, Operator::read(numbers.vec()));
  }

  static Tensor compute(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
    return run(x, weights, numbers, nullptr);
  }

  static Tensor profile_output(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
    output(x, weights, numbers);
    return at::zeros({int64_t(numbers.size()) / Operator::kFields, Operator::kTimed}, x.options().dtype(at::kDouble));
  }

  static Tensor profile(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
    const Tensor seconds = profile_output(x, weights, numbers);
    run(x, weights, numbers, seconds.mutable_data_ptr<double>());
    return seconds;
  }

 private:
  static Tensor checked(const Tensor& x, const Tensor& weights, const Plan& plan) {
    check_element_map(x, "x");
    const MapSizes sizes = Operator::sizes(x, plan);
    check_weights(weights, x, plan.weights);
    return empty_map(x, sizes);
  }

  static Tensor run(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers, double* seconds) {
    const Plan plan = Operator::read(numbers.vec());
    const InferenceKernels& kernels = inference_kernels();
    const Tensor output = checked(x, weights, plan);
    const Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
    Operator::run(Call<Plan>{
        .kernels = kernels,
        .plan = plan,
        .images = x.size(0),
        .height = int(x.size(2)),
        .width = int(x.size(3)),
        .input = elements(input),
        .weights = packed_weights(weights),
        .output = mutable_elements(output),
        .in_image = x.size(1) * x.size(2) * x.size(3),
        .out_image = output.size(1) * output.size(2) * output.size(3),
        .seconds = seconds,
    });
    return output;
  }
};

}  // namespace elastic

// Registers a struct as above, and its profile as NAME_profile.
#define ELASTIC_PLANNED_OPERATOR(name, Operator)                                                                    \
  ELASTIC_OPERATOR(name, "(Tensor x, Tensor weights, int[] plan) -> Tensor", Planned<Operator>::compute,            \
                   Planned<Operator>::output)                                                                       \
  ELASTIC_OPERATOR(name "_profile", "(Tensor x, Tensor weights, int[] plan) -> Tensor", Planned<Operator>::profile, \
                   Planned<Operator>::profile_output)
