// make eslint (part of make lint)
const browser = [
  "window", "document", "location", "history", "performance", "getComputedStyle", "matchMedia", "requestAnimationFrame",
  "requestIdleCallback", "localStorage", "Blob", "FormData", "setTimeout", "clearTimeout", "ResizeObserver", "Image", "URL", "fetch", "atob",
];

export default [
  {
    files: ["**/*.js"],
    languageOptions: { ecmaVersion: 2022, sourceType: "script", globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) },
    rules: {
      "no-undef": "error", "no-unused-vars": "error", "no-shadow": "error", "no-eval": "error", "no-implied-eval": "error",
      "no-var": "error", "prefer-const": "error", eqeqeq: "error", strict: ["error", "global"], "consistent-return": "error",
      "no-fallthrough": "error", "no-redeclare": "error", "no-unreachable": "error", "no-constant-condition": "error",
      "no-restricted-properties": ["error", { property: "innerHTML" }, { property: "outerHTML" }, { property: "insertAdjacentHTML" }],
      complexity: ["error", 20], "max-lines": ["error", 350], "max-lines-per-function": ["error", { max: 330 }],
    },
  },
];
