// Columns of a wide matrix and a narrow one with as many rows.          wide (rows, columns)   narrow (rows, width)
//   place: wide[:, first + c] = narrow[:, c]      take: narrow[:, c] = wide[:, first + c]
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, width: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> narrow: array<elem>;
@group(0) @binding(2) var<storage, read_write> wide: array<elem>;

@compute @workgroup_size(64)
fn place(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.rows * p.width) { wide[i / p.width * p.columns + p.first + i % p.width] = narrow[i]; }
}

@group(0) @binding(1) var<storage, read> source: array<elem>; // the wide one
@group(0) @binding(2) var<storage, read_write> part: array<elem>;

@compute @workgroup_size(64)
fn take(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.rows * p.width) { part[i] = source[i / p.width * p.columns + p.first + i % p.width]; }
}
