// What an adapter can do at most, for the bench: every kernel's time is divided by these.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { size: u32, rounds: u32 } // size in vec4
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

// y = x
@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = x[i]; }
}

// 32 multiply-adds on vec4 a round, in eight chains that do not wait for each other.
@group(0) @binding(2) var<storage, read_write> sums: array<elem>; // one an invocation
@compute @workgroup_size(64)
fn multiply_add(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  let factor = vec4<elem>(elem(0.5));
  let term = vec4<elem>(elem(f32(lane)));
  var chains: array<vec4<elem>, 8>;
  for (var round = 0u; round < p.rounds; round++) {
    for (var repeat = 0u; repeat < 4u; repeat++) {
      for (var c = 0u; c < 8u; c++) { chains[c] = chains[c] * factor + term; }
    }
  }
  var total = vec4<elem>();
  for (var c = 0u; c < 8u; c++) { total += chains[c]; }
  sums[i] = total.x + total.y + total.z + total.w;
}
