// The switch between the system's theme, light and dark; `themechange` follows.
(() => {
  const choice = document.getElementById('theme');
  const changed = () => document.dispatchEvent(new Event('themechange'));
  choice.addEventListener('change', () => {
    const { dataset } = document.documentElement;
    if (choice.value === 'system') delete dataset.theme;
    else dataset.theme = choice.value;
    changed();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
})();
