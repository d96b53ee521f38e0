const result = JSON.parse(one('#result').textContent);
new Place('truth', async (filled) => {
  if (!filled) return;
  show(one('#failure'));
  try {
    if (await shownJob('compare', { result })) location.reload();
  } catch (error) {
    show(one('#failure'), error.message);
  }
});
