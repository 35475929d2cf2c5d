"""The hand-written sample items: few, and known by their codes to sample visits and tests."""

from __future__ import annotations

from dataclasses import dataclass

from services.catalog.domain.item import ListType


@dataclass(frozen=True, slots=True)
class Sample:
    """An item as it is in 北京, and what differs elsewhere."""

    code: str
    name: str
    category: int
    kind: str
    limit_yuan: int = 0
    """Limit in a level-3 institution of 北京; 0 for none."""
    one_limit: bool = False
    """The same limit at every level and in every province (a national payment standard)."""
    limited_use: str = ""
    elsewhere: tuple[tuple[str, str], ...] = ()
    """Provinces of another kind; `` means that the province does not list the item."""
    special: ListType | None = None
    """The list, where the fee category does not tell it."""
    day_limit: int = 0
    visit_limit: int = 0
    centrally_purchased: bool = False

    @property
    def list_type(self) -> ListType:
        """The list that it belongs to."""
        return self.special or _LISTS.get(self.category, ListType.SERVICE)

    def kind_in(self, site: str) -> str:
        """The kind in a province, empty where it is not listed."""
        return dict(self.elsewhere).get(site, self.kind)


_W, _P, _H = 9, 11, 10  # 西药, 中成药, 中药饮片
# The national list of an item by its fee category; what is not named is a service.
_LISTS = {
    8: ListType.CONSUMABLE,
    _W: ListType.DRUG,
    _P: ListType.DRUG,
    _H: ListType.HERBAL_PIECES,
}


def _drug(
    code: str,
    name: str,
    kind: str,
    category: int = _W,
    *,
    limit: int = 0,
    use: str = "",
    elsewhere: tuple[tuple[str, str], ...] = (),
    special: ListType | None = None,
    day_limit: int = 0,
    visit_limit: int = 0,
    centrally_purchased: bool = False,
) -> Sample:
    return Sample(
        f"{code}-SAMPLE",
        name,
        category,
        kind,
        limit,
        limit > 0,
        use,
        elsewhere,
        special,
        day_limit,
        visit_limit,
        centrally_purchased,
    )


DRUGS = (
    _drug("XA02BC01A001", "奥美拉唑肠溶胶囊", "甲"),
    _drug("XA02BC02A002", "注射用泮托拉唑钠", "乙"),
    _drug("XA03FA03A003", "多潘立酮片", "甲"),
    _drug("XA07EC01A004", "柳氮磺吡啶肠溶片", "甲"),
    _drug("XA10AB05A005", "门冬胰岛素注射液", "乙", limit=42),
    _drug("XA10AE04A006", "甘精胰岛素注射液", "乙", limit=78),
    _drug("XA10BA02A007", "盐酸二甲双胍片", "甲"),
    _drug("XA10BF01A008", "阿卡波糖片", "甲"),
    _drug("XA10BH01A009", "磷酸西格列汀片", "乙", limit=5),
    _drug("XA10BK01A010", "达格列净片", "乙", limit=4),
    _drug("XB01AB05A011", "依诺肝素钠注射液", "乙"),
    _drug("XB01AC04A012", "硫酸氢氯吡格雷片", "乙", limit=3, centrally_purchased=True),
    _drug("XB01AC06A013", "阿司匹林肠溶片", "甲"),
    _drug("XB01AF01A014", "利伐沙班片", "乙", limit=4),
    _drug(
        "XB05AA01A015",
        "人血白蛋白注射液",
        "乙谈判",
        use="限抢救、重症或因肝硬化、癌症引起胸腹水的患者",
    ),
    _drug("XB05BB01A016", "0.9%氯化钠注射液", "甲"),
    _drug("XB05BA03A017", "5%葡萄糖注射液", "甲"),
    _drug("XB05BA01A018", "复方氨基酸注射液", "乙", use="限因病情需要禁食或不能经口进食的患者"),
    _drug("XC01DA02A019", "硝酸甘油片", "甲"),
    _drug("XC01EB15A020", "盐酸曲美他嗪片", "乙"),
    _drug("XC03CA01A021", "呋塞米注射液", "甲"),
    _drug("XC07AB02A022", "琥珀酸美托洛尔缓释片", "甲"),
    _drug("XC08CA01A023", "苯磺酸氨氯地平片", "甲"),
    _drug("XC09AA02A024", "马来酸依那普利片", "甲"),
    _drug("XC09CA03A025", "缬沙坦胶囊", "甲", elsewhere=(("370000", "乙"),)),
    _drug("XC10AA05A026", "阿托伐他汀钙片", "甲", centrally_purchased=True),
    _drug("XC10AX09A027", "依折麦布片", "乙"),
    _drug(
        "XC10AX13A028",
        "依洛尤单抗注射液",
        "乙谈判",
        limit=288,
        use="限动脉粥样硬化性心血管疾病患者",
    ),
    _drug("XH02AB06A029", "泼尼松片", "甲"),
    _drug("XH03AA01A030", "左甲状腺素钠片", "甲"),
    _drug("XJ01CR05A031", "注射用哌拉西林钠他唑巴坦钠", "乙"),
    _drug("XJ01DC02A032", "注射用头孢呋辛钠", "甲"),
    _drug("XJ01DD04A033", "注射用头孢曲松钠", "甲"),
    _drug("XJ01DH02A034", "注射用美罗培南", "乙", use="限多重耐药的重症感染"),
    _drug("XJ01FA10A035", "阿奇霉素片", "甲"),
    _drug("XJ01MA14A036", "盐酸莫西沙星片", "乙"),
    _drug("XJ05AF10A037", "恩替卡韦分散片", "乙"),
    _drug(
        "XL01XC03A038", "曲妥珠单抗注射液", "乙谈判", limit=5500, use="限HER2阳性的乳腺癌或胃癌患者"
    ),
    _drug(
        "XL01EB04A039", "甲磺酸奥希替尼片", "乙谈判", limit=186, use="限EGFR突变的非小细胞肺癌患者"
    ),
    _drug("XM01AE01A040", "布洛芬缓释胶囊", "甲"),
    _drug("XN02BE01A041", "对乙酰氨基酚片", "甲"),
    _drug("XN01AX10A042", "丙泊酚中长链脂肪乳注射液", "乙"),
    _drug("XN05BA12A043", "阿普唑仑片", "甲"),
    _drug("XR03AK07A044", "布地奈德福莫特罗吸入粉雾剂", "乙", limit=160),
    _drug("XR03BB04A045", "噻托溴铵粉吸入剂", "乙"),
    _drug("XR05CB01A046", "吸入用乙酰半胱氨酸溶液", "乙", elsewhere=(("440000", "自费"),)),
    _drug("XS01EE01A047", "拉坦前列素滴眼液", "乙"),
    _drug("XV08AB02A048", "碘海醇注射液", "甲"),
    _drug("ZA04AAF001", "复方丹参滴丸", "甲", _P),
    _drug("ZA12HAT002", "通心络胶囊", "乙", _P),
    _drug("ZA06CAL003", "连花清瘟胶囊", "甲", _P),
    _drug("ZA06BAB004", "板蓝根颗粒", "甲", _P),
    _drug("ZA09BAX005", "血塞通注射液", "乙", _P, use="限中风偏瘫或视网膜中央静脉阻塞的患者"),
    _drug("ZA15CAB006", "补中益气丸", "甲", _P),
    _drug("ZC02BAK007", "康莱特注射液", "乙", _P, use="限中晚期肺癌或中晚期肝癌"),
    _drug("ZB01CAY008", "云南白药胶囊", "乙", _P, elsewhere=(("440000", "自费"),)),
    _drug("T000800431", "黄芪", "甲", _H),
    _drug("T000700152", "当归", "甲", _H),
    _drug("T000600213", "阿胶", "自费", _H, elsewhere=(("370000", "乙"),)),
    _drug("T000500874", "燕窝", "自费", _H),
    _drug("XN02AA05A061", "盐酸羟考酮缓释片", "乙", day_limit=6),
    _drug("XL03AX00A062", "注射用胸腺法新", "乙", visit_limit=14, use="限免疫功能受损的患者"),
    _drug("T990800063", "黄芪配方颗粒", "乙", _H, special=ListType.GRANULES),
    _drug("Z990000064", "示例止咳合剂（院内制剂）", "乙", _P, special=ListType.PREPARATION),
    _drug("ZE010000065", "示例民族药七味胶囊", "乙", _P, special=ListType.ETHNIC_DRUG),
)


def _service(
    code: str,
    name: str,
    category: int,
    kind: str = "甲",
    limit: int = 0,
    *,
    use: str = "",
    elsewhere: tuple[tuple[str, str], ...] = (),
    day_limit: int = 0,
) -> Sample:
    return Sample(
        f"00{code}0000-SAMPLE",
        name,
        category,
        kind,
        limit,
        False,
        use,
        elsewhere,
        day_limit=day_limit,
    )


SERVICES = (
    _service("1101000011", "挂号费", 13),
    _service("1102000012", "普通门诊诊察费", 2, limit=50),
    _service("1102000023", "主任医师门诊诊察费", 2, limit=80),
    _service("1102000034", "特需门诊诊察费", 2, "自费"),
    _service("1102000045", "住院诊察费", 2, limit=50),
    _service("1103000016", "急诊监护费", 5, limit=150),
    _service("1109000017", "三人间床位费", 1, limit=60),
    _service("1109000028", "重症监护病房床位费", 1, limit=200),
    _service("1109000039", "特需病房床位费", 1, "自费"),
    _service("1201000011", "重症监护护理", 7, limit=18),
    _service("1201000022", "一级护理", 7, limit=26),
    _service("1201000033", "二级护理", 7, limit=20),
    _service("1204000014", "静脉输液", 5),
    _service("1204000025", "肌肉注射", 5),
    _service("1206000016", "大换药", 5),
    _service("1207000017", "雾化吸入", 5),
    _service("1213000018", "一般诊疗费", 12, limit=20),
    _service("2101020011", "X线胸部正侧位摄影", 3),
    _service("2103000012", "胸部CT平扫", 3, "乙检查", limit=200),
    _service("2103000023", "胸部CT增强扫描", 3, "乙检查", limit=280),
    _service("2102000014", "头颅磁共振平扫", 3, "乙检查", limit=500),
    _service("2303000015", "PET-CT全身显像", 3, "乙检查", 7000, elsewhere=(("440000", "自费"),)),
    _service("2202010026", "腹部彩色多普勒超声", 3),
    _service("2202060017", "心脏彩色多普勒超声", 3, "乙检查", limit=180),
    _service("3107010018", "常规心电图检查", 3),
    _service("3107020019", "动态心电图", 3, "乙检查"),
    _service("2501010151", "血常规", 4, limit=20),
    _service("2501020352", "尿常规", 4),
    _service("2503030043", "糖化血红蛋白测定", 4, limit=60),
    _service("2503050014", "肝功能检查", 4, limit=70),
    _service("2503070015", "肾功能检查", 4, limit=40),
    _service("2503060096", "肌钙蛋白测定", 4, limit=110),
    _service("2504030147", "乙肝病毒DNA定量", 4, "乙检查"),
    _service("3109050081", "电子胃镜检查", 3, "乙检查", limit=320),
    _service("3301000012", "全身麻醉", 6, limit=900),
    _service("3205000023", "经皮冠状动脉支架置入术", 6, limit=4200),
    _service("3312000024", "腹腔镜胆囊切除术", 6, limit=2600),
    _service("3315060185", "人工髋关节置换术", 6, limit=5200),
    _service("3110000016", "血液透析", 5, limit=420),
    _service("3402000017", "运动疗法", 5, "乙检查", elsewhere=(("370000", ""),)),
    _service("4300000018", "普通针刺", 5, day_limit=1),
    _service("1112000019", "救护车费", 14, "自费"),
)


def _material(
    code: str,
    name: str,
    kind: str,
    limit: int = 0,
    *,
    elsewhere: tuple[tuple[str, str], ...] = (),
) -> Sample:
    return Sample(f"{code}-SAMPLE", name, 8, kind, limit, False, "", elsewhere)


MATERIALS = (
    _material("C0201010010000101", "冠脉药物洗脱支架", "乙材料", 900),
    _material("C0201020010000102", "冠脉球囊扩张导管", "乙材料", 400),
    _material("C0201030010000103", "造影导管", "乙材料", 260),
    _material("C0201040010000104", "导引导丝", "乙材料", 600),
    _material("C0301010010000105", "人工髋关节假体", "乙材料", 8000),
    _material("C0301020010000106", "进口陶瓷髋关节假体", "乙进口", 12000),
    _material("C0302010010000107", "锁定接骨板", "乙材料", 1500),
    _material("C0401010010000108", "心脏起搏器（双腔）", "乙材料", 20000),
    _material("C0501010010000109", "人工晶体", "乙材料", 900),
    _material(
        "C0502010010000110", "进口多焦点人工晶体", "乙进口", 3000, elsewhere=(("370000", "自费"),)
    ),
    _material("C0601010010000111", "一次性使用输液器", "甲"),
    _material("C0601020010000112", "一次性使用注射器", "甲"),
    _material("C0601030010000113", "静脉留置针", "甲", 30),
    _material("C0602010010000114", "中心静脉导管", "乙材料", 500),
    _material("C0701010010000115", "腹腔镜用钛夹", "乙材料", 160),
    _material("C0702010010000116", "一次性超声刀头", "自费"),
    _material("C0801010010000117", "透析器", "甲", 150),
    _material("C0802010010000118", "透析管路", "甲", 50),
    _material("C0901010010000119", "医用胶片", "甲", 10),
    _material("C0902010010000120", "镇痛泵", "自费"),
    _material("C1001010010000121", "可吸收止血材料", "乙分段"),
)
SAMPLES = (*DRUGS, *SERVICES, *MATERIALS)
