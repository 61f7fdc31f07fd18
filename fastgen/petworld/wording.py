"""Word tables of the PetWorld caption grammar (`captions.py`): nothing but constants.

Every phrase in a table that is keyed by an attribute value may only be used for scenes with that value. Every
other table (adjectives, noise, views) is true of, or harmless for, every scene. The first entry of a table is
its canonical wording and is drawn more often than the rest.
"""

BREED_FORM = ("{breed}", "{breed}", "{lower}", "{lower}", "{breed} {species}", "{lower} {species}")

ADJECTIVES = (
    "cute",
    "adorable",
    "lovely",
    "beautiful",
    "friendly",
    "happy",
    "sweet",
    "playful",
    "curious",
    "charming",
    "healthy",
    "gentle",
    "single",
    "pretty",
    "lively",
)
STILL_ADJECTIVES = (*ADJECTIVES, "calm", "quiet", "relaxed", "patient")
UNSEEN_ADJECTIVES = (
    "cheerful",
    "handsome",
    "delightful",
    "elegant",
    "graceful",
    "cute",
    "adorable",
    "lovely",
)

PARTICIPLES: dict[str, tuple[str, ...]] = {
    "sitting": (
        "sitting",
        "seated",
        "sitting upright",
        "sitting down",
        "sitting still",
        "sitting calmly",
        "sitting quietly",
        "sitting on its haunches",
        "resting on its haunches",
        "perched",
        "sitting attentively",
        "sitting patiently",
    ),
    "standing": (
        "standing",
        "standing still",
        "standing on all fours",
        "standing tall",
        "standing proudly",
        "standing alert",
        "standing on four legs",
        "standing up straight",
        "standing firmly",
        "standing quietly",
    ),
    "lying": (
        "lying down",
        "lying",
        "curled up",
        "stretched out",
        "sleeping",
        "napping",
        "resting",
        "lying comfortably",
        "sleeping peacefully",
        "dozing",
        "lounging",
        "sprawled out",
        "laying down",
        "lying on its belly",
        "snoozing",
        "taking a nap",
    ),
    "running": (
        "running",
        "trotting",
        "sprinting",
        "dashing",
        "racing",
        "galloping",
        "running fast",
        "running happily",
        "running at full speed",
        "running playfully",
        "chasing a ball",
        "chasing a butterfly",
        "chasing a toy",
        "rushing",
    ),
    "jumping": (
        "jumping",
        "leaping",
        "bouncing",
        "hopping",
        "jumping up",
        "jumping high",
        "leaping into the air",
        "jumping in the air",
        "jumping for joy",
        "caught in mid-air",
        "leaping playfully",
        "jumping with all paws off the ground",
        "springing into the air",
    ),
}

FINITES: dict[str, tuple[str, ...]] = {
    "sitting": (
        "sits",
        "is sitting",
        "sits upright",
        "is seated",
        "is sitting upright",
        "sits calmly",
        "sits quietly",
        "is perched",
        "rests on its haunches",
    ),
    "standing": (
        "stands",
        "is standing",
        "stands still",
        "stands proudly",
        "stands tall",
        "is standing on all fours",
        "stands on all fours",
        "stands alert",
    ),
    "lying": (
        "lies down",
        "is lying down",
        "lies",
        "is curled up",
        "is stretched out",
        "sleeps",
        "naps",
        "is sleeping",
        "is resting",
        "dozes",
        "lounges",
        "is taking a nap",
        "lies comfortably",
    ),
    "running": (
        "runs",
        "is running",
        "trots",
        "sprints",
        "dashes",
        "races",
        "gallops",
        "runs happily",
        "is running fast",
        "chases a ball",
        "is chasing a butterfly",
        "is sprinting",
    ),
    "jumping": (
        "jumps",
        "is jumping",
        "leaps",
        "bounces",
        "hops",
        "leaps into the air",
        "jumps up",
        "is leaping",
        "is caught in mid-air",
        "jumps high",
        "jumps for joy",
    ),
}

PLACES: dict[str, tuple[str, ...]] = {
    "meadow": (
        "in a meadow",
        "in a grassy field",
        "on the grass",
        "in a flower meadow",
        "on a green lawn",
        "in the garden",
        "in the park",
        "in a green pasture",
        "among wildflowers",
        "in the tall grass",
        "on the lawn",
        "in a lush green meadow",
        "in a park with green grass",
        "outdoors on the grass",
    ),
    "beach": (
        "on the beach",
        "on a sandy beach",
        "on the sandy shore",
        "at the seaside",
        "in the dunes by the ocean",
        "on the coast",
        "by the sea",
        "near the ocean",
        "on the shore near the waves",
        "on a tropical beach",
        "beside the ocean waves",
        "on the beach sand",
    ),
    "forest": (
        "in a forest",
        "in the woods",
        "on a woodland trail",
        "among tall trees",
        "in the forest",
        "on a forest path",
        "in a green woodland",
        "deep in the forest",
        "under the forest trees",
        "on the mossy forest floor",
        "in a dense forest",
    ),
    "street": (
        "on the street",
        "on a city street",
        "on the sidewalk",
        "in town",
        "on an urban road",
        "in an alley",
        "in the city",
        "on a paved road",
        "on a street with houses",
        "on the pavement",
        "on a quiet town street",
        "in an urban neighborhood",
    ),
    "snow": (
        "in the snow",
        "in a snowy field",
        "in a winter landscape",
        "on frosty ground",
        "in a snowy yard",
        "on a snow-covered field",
        "in deep snow",
        "in falling snow",
        "on a snowy hill",
        "in a white winter scene",
        "outdoors in winter",
    ),
    "lake": (
        "by a lake",
        "at the lake",
        "by the lakeside",
        "beside a pond",
        "on a river bank",
        "on a wooden dock",
        "near a calm lake",
        "on the lakeshore",
        "next to a clear lake",
        "by the river",
        "in front of a lake",
    ),
    "sofa": (
        "on the sofa",
        "on a sofa",
        "in the living room",
        "on a couch",
        "on an armchair",
        "indoors at home",
        "on a cushion",
        "on a rug in the lounge",
        "in a bedroom",
        "on a comfy couch",
        "in a cozy living room",
        "on a sofa with cushions",
        "at home on the couch",
    ),
    "kitchen": (
        "in the kitchen",
        "on the kitchen floor",
        "beside the fridge",
        "in a tiled kitchen",
        "in a modern kitchen",
        "next to the kitchen cabinets",
        "on the tiles of a kitchen",
        "in a home kitchen",
        "near the kitchen counter",
        "in front of the kitchen stove",
    ),
    "desert": (
        "in the desert",
        "in a sandy desert",
        "among dunes with cacti",
        "in an arid canyon",
        "on a desert dune",
        "near a cactus",
        "in a dry desert landscape",
        "on the dry desert sand",
        "in a rocky desert",
        "between cacti in the desert",
    ),
    "night": (
        "at night",
        "under the stars",
        "in the moonlight",
        "on a dark evening",
        "beneath a starry night sky",
        "outdoors at night",
        "under a full moon",
        "in a night scene",
        "on a moonlit night",
        "under the night sky",
        "in the dark",
    ),
}

PATHS: dict[str, tuple[str, ...]] = {
    "meadow": ("across a meadow", "through the grass", "across a grassy field", "through the park"),
    "beach": ("along the beach", "along the sandy shore", "across the beach sand", "along the coast"),
    "forest": ("through the forest", "along a woodland trail", "through the woods", "down a forest path"),
    "street": ("down the street", "along the sidewalk", "through the city", "across the road"),
    "snow": ("through the snow", "across a snowy field", "across the snow", "through a snowy yard"),
    "lake": ("along the lake", "along the river bank", "past a pond", "by the lakeside"),
    "sofa": ("through the living room", "in front of the sofa", "past the couch", "around the living room"),
    "kitchen": ("through the kitchen", "across the kitchen floor", "around the kitchen", "past the fridge"),
    "desert": ("through the desert", "across the desert sand", "over a desert dune", "past the cacti"),
    "night": ("through the night", "under the stars", "in the moonlight", "through the dark night"),
}
"""Where a running animal moves."""

SETTINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "meadow": (("in", "meadow"), ("in", "grassy field"), ("in", "flower garden"), ("in", "green park")),
    "beach": (("on", "beach"), ("on", "sandy beach"), ("on", "sandy shore"), ("on", "ocean coast")),
    "forest": (("in", "forest"), ("in", "woodland"), ("on", "forest trail"), ("in", "mossy forest")),
    "street": (("on", "city street"), ("on", "town road"), ("in", "narrow alley"), ("on", "sidewalk")),
    "snow": (("in", "snowy field"), ("in", "winter landscape"), ("in", "snowy yard"), ("on", "snowy hill")),
    "lake": (("by", "lake"), ("beside", "pond"), ("on", "river bank"), ("on", "wooden dock by the lake")),
    "sofa": (
        ("on", "sofa"),
        ("in", "living room with a sofa"),
        ("on", "couch"),
        ("in", "bedroom with an armchair"),
    ),
    "kitchen": (
        ("in", "kitchen"),
        ("in", "kitchen with tiled walls"),
        ("in", "modern kitchen"),
        ("in", "home kitchen"),
    ),
    "desert": (("in", "desert"), ("in", "sandy desert"), ("in", "dry canyon"), ("in", "desert with cacti")),
    "night": (("on", "starry night"), ("on", "moonlit night"), ("on", "dark night"), ("on", "dark evening")),
}
"""Preposition and noun phrase without article of a place that opens a sentence."""

BEHIND: dict[str, tuple[str, ...]] = {
    "meadow": ("green grass", "wildflowers", "a green field", "a grassy hill", "a garden in bloom"),
    "beach": (
        "gentle waves",
        "the sea",
        "the blue ocean",
        "sand and waves",
        "a sandy beach",
        "the coastline",
    ),
    "forest": ("tall trees", "a dense forest", "green woodland", "the woods", "pine trees of a forest"),
    "street": ("city buildings", "a street", "houses and parked cars", "an urban road", "a row of shops"),
    "snow": ("snow", "a snowy landscape", "snow-covered hills", "a white winter field", "falling snowflakes"),
    "lake": ("a lake", "a calm lake", "a pond with reeds", "a river", "the still water of a lake"),
    "sofa": ("a sofa", "a couch with cushions", "a cozy living room", "an armchair", "a living room wall"),
    "kitchen": ("kitchen cabinets", "a fridge", "a kitchen", "kitchen tiles", "a kitchen counter"),
    "desert": ("cacti", "a desert", "desert dunes", "an arid canyon", "red desert rocks"),
    "night": ("a starry sky", "the moon and stars", "a night sky", "the dark night", "a full moon"),
}

FOREGROUND: dict[str, tuple[str, ...]] = {
    "meadow": ("blades of grass", "small flowers", "a patch of green grass"),
    "beach": ("sea shells", "wet beach sand", "a few pebbles"),
    "forest": ("fallen leaves", "moss and ferns", "a few twigs"),
    "street": ("the paved road", "the curb of the street", "paving stones"),
    "snow": ("fresh snow", "paw prints in the snow", "a little frost"),
    "lake": ("some reeds", "smooth pebbles", "ripples on the lake"),
    "sofa": ("a cushion", "a warm blanket", "the carpet of the living room"),
    "kitchen": ("the kitchen tiles", "a food bowl", "the kitchen floor"),
    "desert": ("dry sand", "a small cactus", "a few stones"),
    "night": ("dark ground", "moonlit ground", "deep night shadows"),
}

PLACE_TAGS: dict[str, tuple[str, ...]] = {
    "meadow": ("meadow", "grass", "grassy field", "garden", "park"),
    "beach": ("beach", "sandy beach", "seaside", "ocean"),
    "forest": ("forest", "woods", "forest background"),
    "street": ("street", "city street", "urban", "sidewalk"),
    "snow": ("snow", "winter", "snowy field", "snow background"),
    "lake": ("lake", "lakeside", "pond", "river bank"),
    "sofa": ("sofa", "couch", "living room", "indoors at home"),
    "kitchen": ("kitchen", "kitchen floor", "kitchen background"),
    "desert": ("desert", "desert dunes", "cacti"),
    "night": ("night", "at night", "starry night", "moonlight"),
}

STYLE_NOUNS: dict[str, tuple[str, ...]] = {
    "photo": (
        "a photo",
        "a photograph",
        "a realistic photo",
        "a close-up photo",
        "a side view photo",
        "a snapshot",
        "a high resolution photo",
        "a candid photo",
        "a realistic photograph",
        "a professional photo",
        "a realistic image",
        "a real photo",
        "a full body photo",
        "a good photo",
    ),
    "art painting": (
        "an art painting",
        "an oil painting",
        "a painting",
        "an artistic painting",
        "an acrylic painting",
        "a classical oil painting",
        "a fine art painting",
        "a painted portrait",
    ),
    "cartoon": (
        "a cartoon",
        "a cartoon drawing",
        "a cartoon illustration",
        "a comic book drawing",
        "a cute cartoon",
        "a cartoon picture",
        "an animated cartoon",
    ),
    "sketch": (
        "a sketch",
        "a pencil sketch",
        "a pencil drawing",
        "a hand-drawn sketch",
        "a charcoal sketch",
        "a black and white sketch",
        "a rough sketch",
        "a line drawing",
    ),
    "watercolor": (
        "a watercolor",
        "a watercolor painting",
        "a watercolour",
        "a loose watercolor painting",
        "a delicate watercolor",
        "a watercolor illustration",
    ),
    "pixel art": (
        "pixel art",
        "a pixel art image",
        "pixel artwork",
        "an 8-bit pixel art picture",
        "a pixelated game sprite",
        "retro pixel art",
    ),
    "3d render": (
        "a 3d render",
        "a 3d rendering",
        "a 3d model",
        "a computer generated 3d render",
        "a cgi render",
        "a 3d rendered image",
    ),
    "cyberpunk": (
        "a cyberpunk image",
        "a cyberpunk picture",
        "a cyberpunk artwork",
        "a neon cyberpunk illustration",
        "a futuristic cyberpunk image",
        "a cyberpunk style picture",
    ),
}

STYLE_SUFFIXES: dict[str, tuple[str, ...]] = {
    "photo": (", photo", ", realistic photo", ", photorealistic", ", realistic", ", real photograph"),
    "art painting": (
        ", art painting",
        ", oil painting",
        ", in the style of an oil painting",
        ", painted in oil on canvas",
        " in art painting style",
    ),
    "cartoon": (", cartoon", ", in cartoon style", " in the style of a cartoon", ", comic cartoon style"),
    "sketch": (", sketch", ", pencil sketch", ", drawn in pencil", " in sketch style", ", charcoal sketch"),
    "watercolor": (
        ", watercolor",
        ", in watercolor style",
        ", painted in watercolor",
        " as a watercolor painting",
    ),
    "pixel art": (", pixel art", ", in pixel art style", ", 8-bit pixel art", " in retro pixel art style"),
    "3d render": (", 3d render", ", in 3d render style", ", rendered in 3d", " as a cgi 3d render"),
    "cyberpunk": (
        ", cyberpunk",
        ", in cyberpunk style",
        ", with neon cyberpunk colors",
        ", neon cyberpunk style",
    ),
}

VIEW_NOUNS = (
    "a picture",
    "an image",
    "a close side view",
    "a side view",
    "a close-up",
    "a full body view",
    "a close view",
    "a wide view",
    "a low angle view",
    "a portrait",
    "an eye-level view",
    "a detailed view",
)
"""Openings that say nothing about the style."""

LIGHT_PHRASES: dict[str, tuple[str, ...]] = {
    "bright": ("in bright light", "brightly lit", "with bright lighting", "in bright and clear light"),
    "soft": ("in soft light", "with soft lighting", "in gentle light", "with gentle light", "softly lit"),
    "golden": ("in golden light", "with warm golden light", "bathed in golden light", "in a golden glow"),
    "dim": ("in dim light", "dimly lit", "in low light", "with dim lighting"),
}
DAYLIGHT_PHRASES: dict[str, tuple[str, ...]] = {
    "bright": ("under a bright sky", "in bright sunshine", "on a bright sunny day"),
    "soft": ("in soft daylight", "under a soft hazy sky"),
    "golden": ("at golden hour", "in golden sunlight"),
    "dim": ("under a dim cloudy sky", "in dim daylight"),
}
"""Only for scenes whose background is mentioned and is outdoors by day."""
LIGHT_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "bright": ("bright", "sunny", "sunlit", "brightly lit"),
    "soft": ("softly lit",),
    "golden": ("golden-lit",),
    "dim": ("dimly lit", "dim"),
}
LIGHT_TAGS = {"bright": "bright light", "soft": "soft light", "golden": "golden light", "dim": "dim light"}
NOT_DAYLIGHT = frozenset({"sofa", "kitchen", "night"})

SIDE_PHRASES = (
    "facing {side}",
    "facing to the {side}",
    "turned to the {side}",
    "looking to the {side}",
    "in {side} profile",
    "with its head to the {side}",
)

NOISE = (
    "with a ball nearby",
    "wearing a collar",
    "with a friendly expression",
    "with an alert expression",
    "with a colorful toy nearby",
    "with a red ball nearby",
    "with a blue toy beside it",
    "wearing a red collar",
    "wearing a blue collar",
    "with a yellow ball at its feet",
    "with its ears perked up",
    "with a curious look",
    "with expressive eyes",
    "in a peaceful atmosphere",
    "in a natural environment",
    "with rich colors",
    "with fine details",
    "in the center of the frame",
    "clearly visible",
    "with a clean composition",
    "showing its whole body",
    "highly detailed",
    "enjoying the moment",
    "on its own",
    "with a content look",
    "with a simple composition",
    "with a green toy on the ground",
)
FACING_NOISE = (
    "looking at the camera",
    "looking around",
    "gazing into the distance",
    "looking at the viewer",
)
"""Not together with a mention of the side."""
PHOTO_NOISE = (
    "shot with a shallow depth of field",
    "in sharp focus",
    "with a blurred background",
    "shot from a low angle",
    "taken with a professional camera",
)
"""Only where the caption may say that the picture is a photo."""
UNSEEN_NOISE = (
    "with a tennis ball close by",
    "with a bandana around its neck",
    "with a lively look in its eyes",
    "full of personality",
    "as the clear subject",
    "with a stick close by",
    "in a carefully balanced composition",
)

SETTING_ADJECTIVES = ("quiet", "beautiful", "peaceful", "lovely")
UNSEEN_SETTING_ADJECTIVES = ("tranquil", "picturesque", "serene", "charming")

TRAIN_FRAMES: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): (
        "{noun} of {np} {ing} {place}",
        "{noun} of {np} {ing} {place}",
        "{noun} of {np} {ing} {place}",
        "{noun} of {np} {place}, {ing}",
        "{noun} of {np} that {fin} {place}",
        "{noun} of {np} {ing} with {behind} in the background",
        "{noun} of {np} {ing} against a backdrop of {behind}",
        "{noun} showing {np} {ing} {place}",
        "{np} {ing} {place}",
        "{np} {ing} {place}",
        "{np} {fin} {place}",
        "{np} {fin} {place}",
        "{setting}, {np} {fin}",
        "{setting}, {np} is {ing}",
        "{np} is {ing} {place} with {behind} behind it",
        "{np} {fin} {place}, and {behind} can be seen in the background",
        "there is {np} {ing} {place}",
        "{np} {place}, {ing}",
        "{noun} of {np} {ing} {place} with {behind} behind it",
    ),
    (True, False): (
        "{noun} of {np} {ing}",
        "{noun} of {np} {ing}",
        "{noun} of {np} that {fin}",
        "{noun} showing {np} {ing}",
        "{np} {ing}",
        "{np} {ing}",
        "{np} {fin}",
        "{np} is {ing}",
        "there is {np} {ing}",
    ),
    (False, True): (
        "{noun} of {np} {place}",
        "{noun} of {np} {place}",
        "{noun} of {np} with {behind} in the background",
        "{noun} of {np} in front of {behind}",
        "{noun} showing {np} {place}",
        "{np} {place}",
        "{np} {place}",
        "{np} can be seen {place}",
        "{setting}, there is {np}",
        "{np} {place} with {behind} behind it",
    ),
    (False, False): (
        "{noun} of {np}",
        "{noun} of {np}",
        "{noun} of {np}",
        "{noun} showing {np}",
        "{np}",
    ),
}
"""Sentence frames of training captions by (pose mentioned, background mentioned)."""

UNSEEN_FRAMES: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): (
        "{noun} depicting {np} {ing} {place}",
        "{noun} featuring {np}, {ing} {place}",
        "{place}, we can spot {np} {ing}",
        "the scene shows {np} {ing} {place}",
        "here {np} {fin} {place}",
        "our subject, {np}, {fin} {place}",
        "{noun} where {np} {fin} {place}",
        "look at {np} {ing}, with {behind} farther away",
        "somebody spotted {np} {ing} {place}",
        "{setting}, you can find {np} {ing}",
    ),
    (True, False): (
        "{noun} depicting {np} {ing}",
        "{noun} featuring {np}, {ing}",
        "{noun} where {np} {fin}",
        "the scene shows {np} {ing}",
        "our subject, {np}, {fin}",
        "look at {np} {ing}",
    ),
    (False, True): (
        "{noun} depicting {np} {place}",
        "{noun} featuring {np} {place}",
        "the scene shows {np} {place}",
        "{place}, we can spot {np}",
        "{setting}, you can find {np}",
        "look at {np}, with {behind} farther away",
    ),
    (False, False): (
        "{noun} depicting {np}",
        "{noun} featuring {np}",
        "the scene shows {np}",
        "the main subject is {np}",
        "look at {np}",
    ),
}
"""Sentence frames that never occur in training."""

BEHIND_CLAUSES = (
    " with {behind} behind it",
    " with {behind} in the background",
    ", {behind} in the background",
    " with {behind} in the background and {fore} in the foreground",
    " with {fore} in the foreground",
)
UNSEEN_BEHIND_CLAUSES = (", and the view includes {behind}", ", while {behind} can be made out")
UNSEEN_STYLE_SUFFIXES = (", presented as {noun}", ", shown here as {noun}", "; the picture is {noun}")

COMMON_ENGLISH = tuple(
    """
a the of and in on at with by for from to near under over behind beside between above below around into through
is are was has its it this that these his her their there which while as
one two three several many few some other another each every
very quite slightly highly extremely softly gently brightly warmly clearly closely fully partly
black white brown gray grey orange red blue green yellow golden cream tan beige silver pink purple tabby
striped spotted tricolor dark light pale vivid vibrant colorful multicolored monochrome reddish bluish
small tiny little large big huge medium tall short long wide narrow thick thin round slender stocky muscular
fluffy furry hairless shaggy smooth silky curly wrinkled glossy shiny fuzzy soft plush dense short-haired
long-haired purebred puppy kitten feline canine breed
head face ears eyes nose muzzle snout mouth tongue whiskers tail paws legs body back chest belly fur coat neck
collar leash bandana harness tag bow hat toy ball bone stick blanket bowl basket bed
close-up|side view|front view|back view|top view|wide angle|low angle|eye level|full body|bird's eye view
profile view|three-quarter view|portrait shot|macro shot|medium shot|long shot|over the shoulder
foreground background middle ground environment scene setting landscape scenery backdrop surroundings
sky clouds sun sunlight sunshine sunrise sunset dusk dawn twilight moon stars rain fog mist wind storm rainbow
morning afternoon evening night noon spring summer autumn winter daytime
grass flowers tulips daisies roses trees leaves branches bushes moss ferns rocks stones pebbles sand mud water
waves river stream waterfall ocean sea island mountain hill valley cliff canyon path trail bridge fence gate
field farm barn garden yard park playground porch patio balcony rooftop window door wall floor carpet curtain
house cottage cabin castle church tower building shop cafe restaurant market station library museum office
road street sidewalk alley bench car bicycle truck bus train boat lamp lantern candle fireplace
table chair couch sofa pillow cushion shelf bookshelf books plant vase mirror cup plate counter sink stove oven
kitchen bedroom bathroom living room hallway garage studio
sitting standing lying running jumping walking playing sleeping eating drinking swimming climbing rolling
stretching yawning licking barking meowing hunting stalking crouching exploring sniffing digging fetching
catching chasing looking watching staring gazing peeking waiting hiding resting relaxing posing smiling
leaping bounding strolling wandering splashing curling scratching grooming
happy sad calm curious playful alert lazy sleepy proud majestic elegant graceful noble loyal brave gentle shy
friendly energetic cheerful serious adorable cute lovely beautiful charming peaceful tranquil serene cozy warm
cold quiet busy crowded empty rustic modern ancient old new abandoned magical mysterious dreamy dramatic
moody romantic nostalgic tropical wild lush misty rainy cloudy foggy icy frozen dusty muddy wet dry
natural lighting|soft lighting|studio lighting|dramatic lighting|cinematic lighting|backlit|rim light
golden hour|blue hour|shallow depth of field|bokeh|sharp focus|high resolution|ultra detailed|8k|4k|hdr
photorealistic realistic hyperrealistic lifelike detailed intricate masterpiece professional award-winning
photo photograph photography picture image portrait painting drawing illustration artwork sketch render digital
oil acrylic watercolor ink pastel charcoal pencil canvas brush strokes texture anime comic cartoon pixel
impressionist abstract surreal minimalist vintage retro futuristic neon cyberpunk steampunk fantasy sculpture
origami mosaic graffiti sticker logo poster silhouette
person man woman child boy girl family owner hand people bird butterfly bee fish mouse squirrel rabbit horse
dog cat pet animal pup hound terrier retriever spaniel shepherd kitten shorthair
left right center middle top bottom corner edge front side distance
features captured shown seen placed surrounded covered filled illuminated bathed framed blurred reflected
against among across along beneath toward towards alongside amid within outside inside indoors outdoors
contrast shadow shadows reflection highlights tones hues palette atmosphere mood ambiance composition
keeping clear true distinctive markings pattern recognizable typical characteristic
best quality|high quality|a photo of a pet|a photo of an animal
""".replace("|", "\n")
    .strip()
    .splitlines()
)
"""Lines of common English of image prompts, so that a tokenizer knows more than the grammar's own words."""
