// Values stored between reloads of this tab, and between visits. A browser that forbids storage only loses them.

function storageOf(storage) {
  return {
    get(name, otherwise) {
      try {
        const text = storage().getItem(`timbred.${name}`);
        return text === null ? otherwise : JSON.parse(text);
      } catch (error) {
        console.warn(`timbred.${name} can't be read:`, error);
        return otherwise;
      }
    },
    set(name, value) {
      try {
        storage().setItem(`timbred.${name}`, JSON.stringify(value));
      } catch (error) {
        console.warn(`timbred.${name} can't be stored:`, error);
      }
    },
  };
}

export const tabStorage = storageOf(() => sessionStorage);
export const localStore = storageOf(() => localStorage);
