// A plain object: importing `vitest/config` only for its types would make vitest a dependency of this package.
export default {
  test: {
    include: ["suite.test.ts"],
    // The property tests make hundreds of requests one after another, and appends are durable before they are answered.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Two runs against two gateways may share this folder.
    cache: false,
  },
};
