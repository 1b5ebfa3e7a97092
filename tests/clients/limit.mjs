// Waits have an end, and say what was waited for.

const LIMIT_MS = 20_000;

/** Settles like `promise`, or rejects after `limit` milliseconds with `what()`, the thing that did not come. */
export async function within(promise, what, limit = LIMIT_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${limit / 1000} s: ${what()}`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
